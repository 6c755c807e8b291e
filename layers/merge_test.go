package layers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// mountTrees mounts the trees of a chain, nearest first, as an overlay.
func mountTrees(t testing.TB, chain []*layers.Layer) string {
	t.Helper()
	var lowers []string
	for _, l := range chain {
		lowers = append(lowers, l.TreeDir())
	}
	return mountDirs(t, lowers)
}

// mountDirs mounts directories as an overlay.
func mountDirs(t testing.TB, lowers []string) string {
	t.Helper()
	dir := t.TempDir()
	if len(lowers) == 1 {
		lowers = append(lowers, t.TempDir())
	}
	must(t, unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lowers, ":")))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// applyRandom applies the first random tar that is taken.
func applyRandom(t testing.TB, c *layers.Catalog, m tarMaker, id, parent string) *layers.Layer {
	t.Helper()
	for range 100 {
		items := make([]item, 1+m.IntN(14))
		for i := range items {
			items[i] = m.item()
		}
		if l, err := tryApply(c, id, parent, makeTar(t, items...)); err == nil {
			return l
		}
	}
	t.Fatal("no random tar was taken")
	return nil
}

// TestMergeMatchesMount compares flat checkouts of random chains with what the kernel shows of the chain.
func TestMergeMatchesMount(t *testing.T) {
	base := tmpfs(t)
	c := openCatalog(t, base+"/home", layers.Options{})
	for seed := range oracleSeeds(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := tarMaker{rand.New(rand.NewPCG(seed, 2))}
			parent := ""
			for i := range 1 + m.IntN(4) {
				parent = applyRandom(t, c, m, fmt.Sprintf("l%d-%d", seed, i), parent).ID
			}
			chain, err := layers.Catalogs{c}.Chain(parent)
			must(t, err)
			flat := fmt.Sprintf("%s/flat%d", base, seed)
			flatten(t, chain, flat)
			compareTrees(t, describeTree(t, mountTrees(t, chain), true), describeTree(t, flat, true))
			uniqueInodes(t, flat)
			must(t, os.RemoveAll(flat))
		})
	}
}

// uniqueInodes fails if an inode of the tree has names that the layers do not say are hardlinks. describeTree shows those groups; here
// only the counts of names are compared with what Merge says.
func uniqueInodes(t testing.TB, dir string) {
	t.Helper()
	seen := make(map[uint64]string)
	for p := range describeTree(t, dir, false) {
		var st unix.Stat_t
		must(t, unix.Lstat(dir+"/"+p, &st))
		if st.Size == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
			seen[st.Ino] += " " + p
		}
	}
	for _, names := range seen {
		if strings.Count(names, " ") == 1 {
			t.Errorf("empty file %s has links outside of the tree", names)
		}
	}
}

// flatten makes a flat checkout of a chain.
func flatten(t *testing.T, chain []*layers.Layer, dst string) {
	t.Helper()
	m, err := layers.Merge(context.Background(), chain)
	must(t, err)
	must(t, layers.Flat{}.Materialise(context.Background(), m, dst))
}
