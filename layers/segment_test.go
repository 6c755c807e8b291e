package layers_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// lowersOf returns the directories of what lies below a layer, and how many of them are segments.
func lowersOf(t testing.TB, c *layers.Catalog, id string) (dirs []string, segments int) {
	t.Helper()
	l, err := c.Layer(id)
	must(t, err)
	parts, err := layers.Catalogs{c}.Parts(l)
	must(t, err)
	for _, p := range parts {
		if p.Layer == nil {
			dirs = append(dirs, p.Dirs...)
			segments++
			continue
		}
		own, err := p.Layer.Lowers()
		must(t, err)
		dirs = append(dirs, own...)
	}
	return dirs, segments
}

// listTree lists all names of a tree as directories list them, whiteouts that the kernel lists included, with link counts where they are
// exact: of everything but symlinks and files with content that are not below etc.
func listTree(t testing.TB, root string) string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		name := strings.TrimPrefix(path, root)
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			shared := st.Mode&unix.S_IFMT == unix.S_IFLNK || st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0
			if !shared || st.Mode&unix.S_IFMT == unix.S_IFREG && strings.HasPrefix(name, "/etc/") {
				name += fmt.Sprintf(" %d", st.Nlink)
			}
		}
		names = append(names, name)
		return nil
	}))
	return strings.Join(names, "\n")
}

// TestSegmentsMatchMount compares what the kernel shows of random chains with what it shows of their segments.
func TestSegmentsMatchMount(t *testing.T) {
	base := tmpfs(t)
	for seed := range oracleSeeds(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := tarMaker{rand.New(rand.NewPCG(seed, 9))}
			k := 2 + m.IntN(3)
			c := openCatalog(t, fmt.Sprintf("%s/home%d", base, seed), layers.Options{Segment: k})
			parent := ""
			depth := k + m.IntN(3*k)
			for i := range depth {
				parent = applyRandom(t, c, m, fmt.Sprintf("l%d", i), parent).ID
			}
			_, err := c.Create("top", parent, layers.CreateOptions{ReadWrite: true})
			must(t, err)
			chain, err := layers.Catalogs{c}.Chain(parent)
			must(t, err)
			dirs, segments := lowersOf(t, c, "top")
			if want := (depth - 1) / k; segments != want {
				t.Errorf("%d layers have %d segments of %d", depth, segments, want)
			}
			if found := checkAll(t, c); len(found) > 0 {
				t.Errorf("a check found %v", found)
			}
			whole, parts := mountTrees(t, chain), mountDirs(t, dirs)
			compareTrees(t, describeTree(t, whole, true), describeTree(t, parts, true))
			if a, b := listTree(t, whole), listTree(t, parts); a != b {
				t.Errorf("the layers list\n%s\nand the segments\n%s", a, b)
			}
		})
	}
}
