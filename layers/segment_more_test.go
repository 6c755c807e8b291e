package layers_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// fiveLayers makes a chain of five layers in a home with segments of two, and a container on it.
func fiveLayers(t *testing.T, home string) *layers.Catalog {
	t.Helper()
	c := openCatalog(t, home, layers.Options{Segment: 2})
	apply(t, c, "l0", "", makeTar(t, file("etc/a", "conf"), link("etc/b", "etc/a"), file("usr/x", "0"), file("usr/gone", "0")))
	apply(t, c, "l1", "l0", makeTar(t, file("etc/.wh.b", ""), file("usr/y", "1")))
	apply(t, c, "l2", "l1", makeTar(t, file("usr/x", "2"), file("usr/.wh.gone", "")))
	apply(t, c, "l3", "l2", makeTar(t, file("usr/z", "3")))
	apply(t, c, "l4", "l3", makeTar(t, file("usr/.wh.y", "")))
	_, err := c.Create("top", "l4", layers.CreateOptions{ReadWrite: true})
	must(t, err)
	return c
}

func wantSegments(t *testing.T, c *layers.Catalog, what string, want int) {
	t.Helper()
	if _, got := lowersOf(t, c, "top"); got != want {
		t.Errorf("%s: %d segments stand for their layers, not %d", what, got, want)
	}
}

// TestSegmentsStand changes layers behind their segments.
func TestSegmentsStand(t *testing.T) {
	base := tmpfs(t)
	c := fiveLayers(t, base+"/home")
	dir := func(id string) string { return base + "/home/layers/" + id }
	wantSegments(t, c, "as staged", 2)
	loose := dir("l2") + "/diff/loose"
	must(t, os.WriteFile(loose, nil, 0o600))
	wantSegments(t, c, "l2 was written to", 1)
	must(t, os.Remove(loose))
	wantSegments(t, c, "what was written is gone", 2)
	must(t, os.Mkdir(dir("l0")+"/mapped", 0o700))
	wantSegments(t, c, "l0 has other owners", 0)
	must(t, os.Remove(dir("l0")+"/mapped"))
	must(t, os.Rename(dir("l3")+"/tree", base+"/tree"))
	must(t, os.Mkdir(dir("l3")+"/tree", 0o755))
	wantSegments(t, c, "l3 has another tree", 1)
	must(t, os.Remove(dir("l3")+"/tree"))
	wantSegments(t, c, "l3 has none", 1)
	must(t, os.Rename(base+"/tree", dir("l3")+"/tree"))
	wantSegments(t, c, "l3 has its tree back", 2)

	list, err := os.ReadFile(dir("l1") + "/segment/list")
	must(t, err)
	must(t, os.WriteFile(dir("l1")+"/segment/list", list[:len(list)/2], 0o600))
	wantSegments(t, c, "a torn list", 0)
	must(t, os.RemoveAll(dir("l3")+"/segment"))
	chain, err := layers.Catalogs{c}.Chain("l4")
	must(t, err)
	must(t, layers.MakeSegments(context.Background(), c, chain))
	wantSegments(t, c, "made again", 2)
	must(t, os.RemoveAll(dir("l3")+"/segment"))
	wantSegments(t, c, "one is gone", 1)
	apply(t, c, "l5", "l3", makeTar(t, file("new", "")))
	wantSegments(t, c, "another layer was staged on the same", 2)
	if left, err := os.ReadDir(c.Repo().Path() + "/extensions/ostree-storage/staging"); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}

	// A layer whose tree is mended is no longer what its segments have.
	must(t, os.WriteFile(dir("l2")+"/tree/usr/x", []byte("2"), 0o644)) // its time is not that of the commit
	mended, err := c.Repair(context.Background(), "l2", layers.RepairOptions{})
	must(t, err)
	if len(mended) == 0 {
		t.Error("nothing was mended")
	}
	wantSegments(t, c, "l2 was mended", 1)
	for _, id := range []string{"top", "l5", "l4", "l3", "l2", "l1", "l0"} {
		cleanup, err := c.Remove(id)
		must(t, err)
		must(t, cleanup())
	}
}

// TestSegmentLinkCounts hides one of two names of an inode whose link count is exact.
func TestSegmentLinkCounts(t *testing.T) {
	c := fiveLayers(t, tmpfs(t)+"/home")
	dirs, _ := lowersOf(t, c, "top")
	root := mountDirs(t, dirs)
	var st unix.Stat_t
	must(t, unix.Lstat(root+"/etc/a", &st))
	if st.Nlink != 2 {
		t.Errorf("etc/a has %d links, and 2 as overlayfs shows it of the layers", st.Nlink)
	}
	names, err := os.ReadDir(root + "/usr")
	must(t, err)
	if got := len(names); got != 2 || !slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.Name() == "z" }) {
		t.Errorf("usr shows %v", names)
	}
}

// TestCloneSegments clones a chain: the other catalog makes segments of its own inodes.
func TestCloneSegments(t *testing.T) {
	base := tmpfs(t)
	from := fiveLayers(t, base+"/home")
	to := openCatalog(t, base+"/pinned", layers.Options{Segment: 2})
	for _, id := range []string{"l0", "l1", "l2", "l3", "l4"} {
		l, err := from.Layer(id)
		must(t, err)
		must(t, layers.Clone(context.Background(), to, l, layers.CloneOptions{}))
	}
	_, err := to.Create("top", "l4", layers.CreateOptions{ReadWrite: true})
	must(t, err)
	dirs, segments := lowersOf(t, to, "top")
	if segments != 2 {
		t.Errorf("the clones have %d segments", segments)
	}
	own, _ := lowersOf(t, from, "top")
	compareTrees(t, describeTree(t, mountDirs(t, own), true), describeTree(t, mountDirs(t, dirs), true))
	// In a third catalog that shows both, the first one's layers count: a segment stands for layers of one catalog.
	both := layers.Catalogs{from, to}
	l, err := from.Layer("top")
	must(t, err)
	must(t, os.RemoveAll(from.Home()+"/layers/l1/segment"))
	parts, err := both.Parts(l)
	must(t, err)
	if len(parts) != 5 {
		t.Errorf("%d parts, where the first catalog has five layers and no lower segment", len(parts))
	}
}

// TestCheckSegments finds what is wrong with a segment, and mends it by mounting the layers.
func TestCheckSegments(t *testing.T) {
	damage := map[string]func(t *testing.T, segment string){
		"a copy with another content": func(t *testing.T, segment string) {
			var st unix.Stat_t
			path := segment + "/tree/etc/a"
			must(t, unix.Lstat(path, &st))
			must(t, os.WriteFile(path, []byte("rott"), 0o644))
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, 0))
		},
		"a copy with another mode": func(t *testing.T, segment string) { must(t, os.Chmod(segment+"/tree/etc/a", 0o600)) },
		"a name that is gone":      func(t *testing.T, segment string) { must(t, os.Remove(segment+"/tree/usr/y")) },
		"a name too many":          func(t *testing.T, segment string) { must(t, os.WriteFile(segment+"/tree/usr/more", nil, 0o644)) },
		"a directory of others":    func(t *testing.T, segment string) { must(t, os.Lchown(segment+"/tree/usr", 5, 5)) },
		"a directory that hides": func(t *testing.T, segment string) {
			must(t, unix.Setxattr(segment+"/tree/usr", "trusted.overlay.opaque", []byte("y"), 0))
		},
		"a directory of none twice": func(t *testing.T, segment string) { must(t, os.RemoveAll(segment+"/dirs/etc")) },
	}
	for what, do := range damage {
		t.Run(what, func(t *testing.T) {
			base := tmpfs(t)
			c := fiveLayers(t, base+"/home")
			if found := checkAll(t, c); len(found) > 0 {
				t.Fatalf("a fault of nothing: %v", found)
			}
			do(t, base+"/home/layers/l1/segment")
			found := checkAll(t, c)
			if len(found) == 0 || found[0].Kind != layers.FaultSegment || found[0].Layer != "l1" {
				t.Errorf("found %v", found)
			}
			mended, err := c.Repair(context.Background(), "l1", layers.RepairOptions{})
			must(t, err)
			if len(mended) == 0 {
				t.Error("nothing was mended")
			}
			wantSegments(t, c, "mended", 0)
			if found := checkAll(t, c); len(found) > 0 {
				t.Errorf("after the repair: %v", found)
			}
		})
	}
}
