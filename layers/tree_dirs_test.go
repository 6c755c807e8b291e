package layers

import (
	"fmt"
	"os"
	"testing"
)

// However often a tree is walked, no more directories stay open than may, and some of them are those that the next walk comes to.
func TestTreeDirsStayOpen(t *testing.T) {
	base := t.TempDir()
	root, err := openDirAt(-1, base)
	if err != nil {
		t.Fatal(err)
	}
	tree := newLayerTree(meta{}, nil)
	dirs := newTreeDirs(tree, root)
	defer dirs.close()
	dirs.keep = 2 * recentDirs
	var ids []nodeID
	for i := range 2 * dirs.keep {
		name := fmt.Sprint(i)
		if err := os.Mkdir(base+"/"+name, 0o700); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, tree.add(rootNode, name, kindDir))
	}
	for walk := range 3 {
		found := 0
		for _, id := range ids {
			if dirs.open[id] != nil {
				found++
			}
			d, err := dirs.get(id)
			if err != nil {
				t.Fatal(err)
			}
			d.release()
			if idle := dirs.recent.Len() + dirs.stay.Len(); idle > dirs.keep || len(dirs.open) != idle+1 {
				t.Fatalf("%d directories are open and %d unused, of at most %d", len(dirs.open), idle, dirs.keep)
			}
		}
		if want := min(walk, 1) * len(ids) / 5; found < want {
			t.Errorf("walk %d found %d of %d directories open, less than %d", walk, found, len(ids), want)
		}
	}
	dirs.forget(ids[0])
	dirs.forget(ids[len(ids)-1])
	if len(dirs.open) != dirs.recent.Len()+dirs.stay.Len()+1 {
		t.Errorf("%d directories are open, %d and %d of them unused", len(dirs.open), dirs.recent.Len(), dirs.stay.Len())
	}
}
