package layers_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// labelAt reads a label, "" for none.
func labelAt(t testing.TB, path string) string {
	t.Helper()
	b := make([]byte, 512)
	n, err := unix.Lgetxattr(path, "security.selinux", b)
	if err != nil && err != unix.ENODATA {
		t.Fatalf("%s: %v", path, err)
	}
	return strings.TrimSuffix(string(b[:max(n, 0)]), "\x00")
}

// hostLabels gives each path a label with the name of a host in it, and none to what is called none.
func hostLabels(host string) *layers.Labels {
	return &layers.Labels{Of: func(path string, mode uint32) string {
		switch {
		case strings.Contains(path, "none"):
			return ""
		case mode&unix.S_IFMT == unix.S_IFDIR:
			return "system_u:object_r:" + host + "_dir_t:s0"
		}
		return "system_u:object_r:" + host + "_t:s0"
	}}
}

// labelTar has a file of each kind, equal files, hardlinks, and files that are inodes of their own.
func labelTar(t testing.TB) []byte {
	big := strings.Repeat("0123456789abcdef", 1<<16)
	return makeTar(t, dir("usr/", 0o755), file("usr/a", big), file("usr/b", big), file("usr/none", big+"n"), link("usr/hard", "usr/a"),
		symlink("usr/link", "a"), symlink("usr/link2", "a"), file("usr/empty", ""), dir("etc/", 0o755), file("etc/conf", "conf"), symlink("none-link", "x"))
}

// TestLabelledRoots has two roots with labels of their own beside each other and beside a container's tree.
func TestLabelledRoots(t *testing.T) {
	for _, label := range []string{"", "system_u:object_r:container_ro_file_t:s0"} {
		t.Run("store label "+label, func(t *testing.T) {
			testfs.Each(t, func(t *testing.T, base string) { labelledRoots(t, base, label) })
		})
	}
}

func labelledRoots(t *testing.T, base, label string) {
	ctx := context.Background()
	c := openCatalog(t, base+"/home", layers.Options{Label: label})
	l := apply(t, c, "img", "", labelTar(t))
	before := describeTree(t, l.TreeDir(), true)
	m, err := layers.Merge(ctx, []*layers.Layer{l})
	must(t, err)
	made := map[string]*layers.Labels{}
	for _, root := range []string{"one", "two", "three"} {
		labels := hostLabels(strings.Replace(root, "three", "one", 1))
		must(t, layers.Flat{Labels: labels}.Materialise(ctx, m, base+"/"+root))
		made[root] = labels
		for p := range describeTree(t, base+"/"+root, false) {
			at := filepath.Join(base, root, p)
			want := labels.Of("/"+strings.TrimPrefix(p, "."), statOf(t, at).Mode)
			if want == "" {
				want = label
			}
			if got := labelAt(t, at); got != want {
				t.Errorf("%s: label %q, want %q", at, got, want)
			}
		}
	}
	// Usr/a, b, link and link2 are lanes; empty and etc/conf are nobody else's.
	for root, want := range map[string]int64{"one": 4, "two": 4, "three": 0} {
		if made[root].New != want || made[root].Labelled != 6 || len(made[root].Conflicts) != 0 {
			t.Errorf("%s: %+v", root, made[root])
		}
	}
	ino := func(p string) uint64 { return statOf(t, base+"/"+p).Ino }
	for _, name := range []string{"usr/a", "usr/b", "usr/link", "usr/link2"} {
		if ino("one/"+name) != ino("three/"+name) || ino("one/"+name) == ino("two/"+name) || ino("one/"+name) == ino("home/layers/img/tree/"+name) {
			t.Errorf("%s: inodes %d, %d, %d", name, ino("one/"+name), ino("three/"+name), ino("two/"+name))
		}
	}
	if ino("one/usr/a") == ino("one/usr/b") || ino("one/usr/a") != ino("one/usr/hard") || ino("one/usr/none") != ino("home/layers/img/tree/usr/none") {
		t.Error("equal files are one inode, or hardlinks are two, or a file without a label is a copy")
	}
	if n := statOf(t, base+"/one/etc/conf").Nlink; n != 1 {
		t.Errorf("etc/conf has %d links", n)
	}
	compareTrees(t, before, describeTree(t, l.TreeDir(), true))
	compareTrees(t, withoutLabels(before), withoutLabels(describeTree(t, base+"/one", true)))
	lanesGo(t, c, base)
}

// labelInList is how describeTree lists a label.
var labelInList = regexp.MustCompile(` security\.selinux=\S+`)

func withoutLabels(tree map[string]string) map[string]string {
	for p, s := range tree {
		tree[p] = labelInList.ReplaceAllString(s, "")
	}
	return tree
}

// lanesGo removes the roots one by one.
func lanesGo(t *testing.T, c *layers.Catalog, base string) {
	ctx := context.Background()
	for _, step := range []struct {
		root  string
		lanes int64
	}{{"three", 0}, {"two", 4}} {
		must(t, os.RemoveAll(base+"/"+step.root))
		freed, err := c.Repo().Prune(ctx, false)
		must(t, err)
		if freed.Lanes != step.lanes {
			t.Errorf("with root %s went %d lanes, want %d", step.root, freed.Lanes, step.lanes)
		}
	}
	// The image goes before the root: its lanes stay sound, and serve the image when it comes again.
	removeAll(t, c, "img")
	wantNoFindings(t, c.Repo())
	l := apply(t, c, "again", "", labelTar(t))
	m, err := layers.Merge(ctx, []*layers.Layer{l})
	must(t, err)
	labels := hostLabels("one")
	must(t, layers.Flat{Labels: labels}.Materialise(ctx, m, base+"/four"))
	if labels.New != 0 {
		t.Errorf("%d new lanes", labels.New)
	}
	must(t, os.RemoveAll(base+"/one"))
	must(t, os.RemoveAll(base+"/four"))
	freed, err := c.Repo().Prune(ctx, false)
	must(t, err)
	if freed.Lanes != 4 {
		t.Errorf("%d lanes went with the last roots, want 4", freed.Lanes)
	}
	wantNoFindings(t, c.Repo())
}

func wantNoFindings(t *testing.T, r *store.Repo) {
	t.Helper()
	must(t, r.Fsck(context.Background(), store.FsckOptions{}, func(f store.Finding) { t.Errorf("fsck: %s", f) }))
}

// TestLabelledDamage has fsck find a lane whose label is not the one in its name.
func TestLabelledDamage(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	base := tmpfs(t)
	home := base + "/home"
	c, err := layers.OpenCatalog(home, layers.Options{})
	must(t, err)
	defer c.Close()
	l := apply(t, c, "img", "", labelTar(t))
	m, err := layers.Merge(ctx, []*layers.Layer{l})
	must(t, err)
	must(t, layers.Flat{Labels: hostLabels("one")}.Materialise(ctx, m, base+"/one"))
	must(t, unix.Lsetxattr(base+"/one/usr/a", "security.selinux", []byte("a:b:c\x00"), 0))
	n := 0
	must(t, c.Repo().Fsck(ctx, store.FsckOptions{}, func(f store.Finding) {
		if n++; f.Kind != store.BadLane || !strings.Contains(f.Reason, "a:b:c") {
			t.Errorf("finding %s", f)
		}
		must(t, c.Repo().DropDamagedLane(f.Path))
	}))
	if n != 1 {
		t.Errorf("%d findings, want 1", n)
	}
	wantNoFindings(t, c.Repo())
}

// TestLabelsRefused has clear errors where labels cannot be.
func TestLabelsRefused(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	base := testfs.Mount(t, "ext4")
	c := openCatalog(t, base+"/home", layers.Options{})
	m, err := layers.Merge(ctx, []*layers.Layer{apply(t, c, "img", "", labelTar(t))})
	must(t, err)
	other := tmpfs(t)
	if err := (layers.Flat{Labels: hostLabels("one")}).Materialise(ctx, m, other+"/linked"); !errors.Is(err, unix.EXDEV) || !errors.Is(err, layers.ErrUnsupported) {
		t.Errorf("on another filesystem: %v", err)
	}
	must(t, layers.Flat{Copy: true, Labels: hostLabels("one")}.Materialise(ctx, m, other+"/copied"))
	if got := labelAt(t, other+"/copied/usr/link"); !strings.Contains(got, ":one_t:") {
		t.Errorf("a copy has the label %q", got)
	}
	none := t.TempDir()
	if err := unix.Mount("ramfs", none, "ramfs", 0, ""); err != nil {
		t.Skipf("no filesystem without attributes to test on: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(none, 0)) })
	err = layers.Flat{Copy: true, Labels: hostLabels("one")}.Materialise(ctx, m, none+"/root")
	if !errors.Is(err, layers.ErrUnsupported) || !strings.Contains(err.Error(), "takes no SELinux labels") {
		t.Errorf("on ramfs: %v", err)
	}
}
