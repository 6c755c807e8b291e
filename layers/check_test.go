package layers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

func checkAll(t testing.TB, c *layers.Catalog) []layers.Fault {
	t.Helper()
	var found []layers.Fault
	if err := c.Check(context.Background(), layers.CheckOptions{}, func(f layers.Fault) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestCheckHasNoFalseFindings checks layers of random tars, with all that tars can have.
func TestCheckHasNoFalseFindings(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		c, err := layers.OpenCatalog(dir+"/home", layers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		m := tarMaker{rand.New(rand.NewPCG(7, 7))}
		parent := ""
		for i := range 60 {
			id := fmt.Sprintf("l%d", i)
			applyRandom(t, c, m, id, parent)
			if parent = id; i%4 == 3 {
				parent = ""
			}
		}
		for _, f := range checkAll(t, c) {
			t.Error(f)
		}
	})
}

// TestB12RepairTree damages one entry of a tree in every way, and has it mended.
func TestB12RepairTree(t *testing.T) {
	for _, test := range []struct {
		name   string
		path   string
		damage func(path string) error
	}{
		{"file gone", "usr/tool", os.Remove},
		{"file of another size", "etc/conf", func(p string) error { return os.WriteFile(p, []byte("longer than before"), 0o644) }},
		{"other content", "etc/conf", func(p string) error {
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			if err := os.WriteFile(p, []byte("CONF"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(p, st.ModTime(), st.ModTime())
		}},
		{"other mode", "etc/conf", func(p string) error { return os.Chmod(p, 0o600) }},
		{"other time", "etc/conf", func(p string) error { return os.Chtimes(p, time.Now(), time.Now()) }},
		{"other attributes", "etc/conf", func(p string) error { return unix.Setxattr(p, "user.x", []byte("y"), 0) }},
		{"other type", "usr/tool", func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return unix.Mkfifo(p, 0o644)
		}},
		{"directory gone", "usr/dir", os.RemoveAll},
		{"mode of a directory", "usr/dir", func(p string) error { return os.Chmod(p, 0o700) }},
		{"hardlink cut", "usr/second", func(p string) error {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.WriteFile(p, b, 0o644)
		}},
		{"whiteout gone", "usr/removed", os.Remove},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := layers.OpenCatalog(t.TempDir()+"/home", layers.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			l := apply(t, c, "l", "", makeTar(t, dir("usr", 0o755), file("usr/tool", "a tool"), link("usr/second", "usr/tool"), dir("usr/dir", 0o755),
				file("usr/dir/deep", "deep"), file("usr/.wh.removed", ""), dir("etc", 0o755), file("etc/conf", "conf")))
			if found := checkAll(t, c); len(found) > 0 {
				t.Fatal(found)
			}
			if err := test.damage(filepath.Join(l.TreeDir(), test.path)); err != nil {
				t.Fatal(err)
			}
			if found := checkAll(t, c); len(found) == 0 {
				t.Fatal("nothing was found")
			}
			done, err := c.Repair(context.Background(), "l", layers.RepairOptions{})
			if err != nil || len(done) == 0 {
				t.Fatal(done, err)
			}
			if found := checkAll(t, c); len(found) > 0 {
				t.Fatalf("after %v: %v", done, found)
			}
			err = c.Repo().Fsck(context.Background(), store.FsckOptions{}, func(f store.Finding) { t.Error(f) })
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
