package layers_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// applyChain makes layers of upper directories, nearest first, and returns them in that order.
func (g *randomTree) applyChain(c *layers.Catalog, prefix string, base []*layers.Layer, uppers []string) []*layers.Layer {
	chain := base
	for i := len(uppers) - 1; i >= 0; i-- {
		parent := ""
		if len(chain) > 0 {
			parent = chain[0].ID
		}
		tar := ourDiff(g.t, layers.DiffOptions{Upper: uppers[i], Lowers: uppers[i+1:]})
		chain = append([]*layers.Layer{apply(g.t, c, fmt.Sprint(prefix, i), parent, tar)}, chain...)
	}
	return chain
}

func treeDirs(chain []*layers.Layer) []string {
	var dirs []string
	for _, l := range chain {
		dirs = append(dirs, l.TreeDir())
	}
	return dirs
}

func compareLayer(t *testing.T, chain []*layers.Layer) {
	t.Helper()
	got, err := layers.LayerChanges(context.Background(), chain)
	must(t, err)
	dirs := treeDirs(chain)
	want, err := layers.Changes(dirs[0], dirs[1:], layers.ChangesOptions{})
	must(t, err)
	if w, g := ourLines(want), ourLines(got); !slices.Equal(w, g) {
		t.Fatalf("changes of the commit differ from those of the directory: %s", diffLines(w, g))
	}
	compareChanges(t, dirs[0], dirs[1:])
}

// compareBetween holds the comparison of commits against that of mounts.
func (g *randomTree) compareBetween(newChain, oldChain []*layers.Layer) {
	g.t.Helper()
	maps := layers.NaiveOptions{}
	if g.oneIn(3) {
		maps = layers.NaiveOptions{NewUIDs: mapShift, NewGIDs: mapUser, OldUIDs: mapShift, OldGIDs: mapAll}
	}
	got, err := layers.ChangesBetween(context.Background(), newChain, oldChain, maps)
	must(g.t, err)
	size, err := layers.SizeBetween(context.Background(), newChain, oldChain, maps)
	must(g.t, err)
	g.mount("", treeDirs(newChain), func(newDir string) {
		compare := func(oldDir string) {
			want, err := layers.NaiveChanges(newDir, oldDir, maps)
			must(g.t, err)
			if w, g2 := ourLines(want), ourLines(got); !slices.Equal(w, g2) {
				g.t.Fatalf("comparing commits and comparing mounts differ: %s", diffLines(w, g2))
			}
			if want, err := layers.ChangesSize(newDir, want); err != nil || size != want {
				g.t.Errorf("size between commits is %d, between mounts %d (%v)", size, want, err)
			}
		}
		if len(oldChain) == 0 {
			compare("")
			return
		}
		g.mount("", treeDirs(oldChain), compare)
	})
}

func TestCommitChangesMatchDirectories(t *testing.T) {
	base := tmpfs(t)
	for seed := range oracleSeeds(40) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { testCommitChanges(t, base, seed) })
	}
}

func TestCommitChangesMatchDirectoriesOnFilesystems(t *testing.T) {
	needRoot(t)
	testfs.Each(t, func(t *testing.T, dir string) {
		for seed := range oracleSeeds(4) {
			testCommitChanges(t, dir, 1000+seed)
		}
	})
}

func testCommitChanges(t *testing.T, base string, seed uint64) {
	g := newRandomTree(t, base, seed)
	g.visible = true
	g.few = seed%2 == 1
	g.base = g.dir(fmt.Sprint("seed", seed))
	c := openCatalog(t, g.dir("home"), layers.Options{NoSync: true})
	shared := g.chain(1+int(seed)%3, 30)
	chains := [][]*layers.Layer{nil}
	root := g.applyChain(c, "s", nil, shared)
	chains = append(chains, root)
	for _, prefix := range []string{"a", "b"} {
		uppers := shared
		for range 1 + int(seed)%2 {
			upper := g.dir("upper")
			g.mount(upper, uppers, func(m string) { g.work(m, 15) })
			uppers = append([]string{upper}, uppers...)
			g.applied(c, prefix, &chains, uppers)
		}
	}
	for i, newChain := range chains[1:] {
		compareLayer(t, newChain)
		g.compareBetween(newChain, chains[i])
		g.compareBetween(newChain, chains[(i*7+3)%len(chains)])
	}
}

// applied makes a layer of the nearest of uppers over the layers of the others, which the last chain has, or its beginning.
func (g *randomTree) applied(c *layers.Catalog, prefix string, chains *[][]*layers.Layer, uppers []string) {
	for _, under := range slices.Backward(*chains) {
		if len(under) == len(uppers)-1 && (under[0].ID[:1] == "s" || under[0].ID[:1] == prefix) {
			tar := ourDiff(g.t, layers.DiffOptions{Upper: uppers[0], Lowers: uppers[1:]})
			l := apply(g.t, c, fmt.Sprint(prefix, len(uppers)), under[0].ID, tar)
			*chains = append(*chains, append([]*layers.Layer{l}, under...))
			return
		}
	}
	g.t.Fatal("no chain to apply to")
}

// What size and time do not show, checksums do.
func TestChangesBetweenSeesContent(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, t.TempDir()+"/home", layers.Options{NoSync: true})
	a := apply(t, c, "a", "", makeTar(t, dir("d/", 0o755), file("d/f", "one"), file("d/g", "same")))
	b := apply(t, c, "b", "", makeTar(t, dir("d/", 0o755), file("d/f", "two"), file("d/g", "same")))
	got, err := layers.ChangesBetween(context.Background(), []*layers.Layer{b}, []*layers.Layer{a}, layers.NaiveOptions{})
	if must(t, err); fmt.Sprint(got) != "[C /d C /d/f]" {
		t.Errorf("changes are %v", got)
	}
	must(t, os.MkdirAll(b.DiffDir(), 0o755))
	must(t, os.WriteFile(b.DiffDir()+"/new", nil, 0o644))
	if _, err := layers.LayerChanges(context.Background(), []*layers.Layer{b}); err == nil {
		t.Error("a layer that was written through a mount was compared by its commit")
	}
	top := apply(t, c, "top", "b", makeTar(t, file("new", "x"), file("other", "x")))
	got, err = layers.LayerChanges(context.Background(), []*layers.Layer{top, b})
	if must(t, err); fmt.Sprint(got) != "[C /new A /other]" {
		t.Errorf("changes over a layer with a loose part are %v", got)
	}
}
