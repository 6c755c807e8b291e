package driver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// lowerCount says how many lower directories a mount has.
func lowerCount(t *testing.T, root string) int {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, " "+root+" ") {
			return strings.Count(line, "lowerdir+=")
		}
	}
	t.Fatalf("%s is not mounted", root)
	return 0
}

// shown mounts a new container on a layer, and returns the names in its d and the number of its lower directories.
func shown(t *testing.T, d *driver.Driver, id, parent string) (names []string, lowers int) {
	t.Helper()
	must(t, d.CreateReadWrite(id, parent, nil))
	root, err := d.Get(id, driver.MountOptions{})
	must(t, err)
	entries, err := os.ReadDir(filepath.Join(root, "d"))
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	lowers = lowerCount(t, root)
	must(t, d.Put(id))
	must(t, d.Remove(id))
	return names, lowers
}

// TestSegments mounts chains whose segments have three layers, with layers that are written to later.
func TestSegments(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	defer driver.SetSegment(3)()
	d := open(t, dir)
	parent := ""
	for i := range 8 {
		id := fmt.Sprintf("l%d", i)
		apply(t, d, id, parent, smallTar(t, i))
		parent = id
	}
	want := func(what string, lowers int, names ...string) {
		t.Helper()
		got, n := shown(t, d, "ctr", parent)
		if !slices.Equal(got, names) || n != lowers {
			t.Errorf("%s: a container has %d lower directories and shows %v; it should have %d and show %v", what, n, got, lowers, names)
		}
	}
	want("as pulled", 5, "6", "7") // two layers, two segments, and d of the lower one once more, which three layers have
	write := func(id, name string) {
		t.Helper()
		root, err := d.Get(id, driver.MountOptions{})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(root, "d", name), nil, 0o600))
		must(t, d.Put(id))
	}
	write("l4", "4th")
	want("a layer of the upper segment was written to", 8, "4th", "6", "7")
	write("l1", "1st")
	want("and one of the lower", 10, "1st", "4th", "6", "7")
	// A layer with copies of other owners, and one on it, so that a segment begins and ends with them.
	must(t, d.CreateFromTemplate("m", "l5", "", nil, false))
	must(t, d.UpdateLayerIDMap("m", driver.Mappings{}, mapped(100000), ""))
	if got, n := shown(t, d, "ctr", "m"); !slices.Equal(got, []string{"1st", "4", "4th", "5"}) || n != 10 {
		t.Errorf("a container on a layer with other owners has %d lower directories and shows %v", n, got)
	}
	for _, id := range []string{"m", "l7", "l6", "l5", "l4", "l3", "l2", "l1", "l0"} {
		must(t, d.Remove(id))
	}
	checkStore(t, dir)
	if left, err := os.ReadDir(filepath.Join(home(dir), "layers")); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}
