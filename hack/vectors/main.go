// Command vectors holds this module's object encodings against the real ostree.
//
// It makes repositories with `ostree commit` and checks that store/object
// computes every object in them, from the files alone. And it compares the
// golden vectors in store/object/testdata with what ostree makes now; with
// -write it writes them anew. It needs root (owners, security attributes) and
// an `ostree` in the path.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	write := flag.Bool("write", false, "write the golden vectors instead of comparing them")
	dir := flag.String("dir", "store/object/testdata", "where the golden vectors are")
	flag.Parse()
	work, err := os.MkdirTemp("/var/tmp", "vectors-")
	if err == nil {
		err = run(work, *dir, *write)
		os.RemoveAll(work)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
}

func run(work, dir string, write bool) error {
	n, err := compareTree(work + "/tree")
	if err != nil {
		return fmt.Errorf("recompute a repository of ostree's: %w", err)
	}
	fmt.Printf("%d objects of an ostree repository recomputed from the files\n", n)
	n, err = goldens(work+"/golden", dir, write)
	if err != nil {
		return fmt.Errorf("golden vectors: %w", err)
	}
	fmt.Printf("%d golden vectors agree with %s\n", n, version())
	return nil
}
