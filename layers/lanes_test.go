package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// inodesOf lists the inodes of files and symlinks in a tree, with the paths of each.
func inodesOf(t testing.TB, root string) map[uint64][]string {
	t.Helper()
	out := make(map[uint64][]string)
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		out[st.Ino] = append(out[st.Ino], strings.TrimPrefix(path, root+"/"))
		return nil
	}))
	return out
}

func statOf(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

// TestLinksOfOneLayer has a busybox-like layer: 400 names are one inode, as in the tar, and 3 equal files are three.
func TestLinksOfOneLayer(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	items := []item{dir("bin/", 0o755), file("bin/busybox", strings.Repeat("busy", 5000))}
	for i := range 399 {
		items = append(items, link(fmt.Sprintf("bin/applet%d", i), "bin/busybox"))
	}
	for i := range 3 {
		items = append(items, file(fmt.Sprintf("usr/copy%d", i), "the same"), file(fmt.Sprintf("usr/empty%d", i), ""), symlink(fmt.Sprintf("usr/link%d", i), "x"))
	}
	data := makeTar(t, items...)
	for _, id := range []string{"one", "two"} {
		l := apply(t, c, id, "", data)
		inodes := inodesOf(t, l.TreeDir())
		if len(inodes) != 1+9 {
			t.Errorf("%d inodes, want 10", len(inodes))
		}
		for _, names := range inodes {
			if len(names) != 1 && len(names) != 400 {
				t.Errorf("%d names of one inode: %q", len(names), names[:2])
			}
		}
		if l.Size != 20000+24+3 || l.Entries != 1+1+1+400+9 {
			t.Errorf("size %d, entries %d", l.Size, l.Entries)
		}
	}
	if a, b := statOf(t, c.Home()+"/layers/one/tree/bin/busybox"), statOf(t, c.Home()+"/layers/two/tree/bin/busybox"); a.Ino != b.Ino {
		t.Error("two roots do not share the file")
	}
}

// TestB05LanesOfAChain applies one tar at every level of a chain: no inode appears twice in the chain, the commits are equal to the bit,
// and another chain shares all inodes.
func TestB05LanesOfAChain(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	data := makeTar(t, file("usr/a", "same"), file("usr/b", "same"), file("usr/c", "other"), symlink("usr/s", "t"))
	for _, chain := range []string{"x", "y"} {
		seen := make(map[uint64]string)
		parent := ""
		for i := range 4 {
			l := apply(t, c, fmt.Sprint(chain, i), parent, data)
			for ino, names := range inodesOf(t, l.TreeDir()) {
				if other, ok := seen[ino]; ok {
					t.Errorf("%s: %q is the inode of %s", l.ID, names, other)
				}
				seen[ino] = fmt.Sprint(l.ID, names)
			}
			parent = l.ID
		}
	}
	x, err := c.Layer("x0")
	must(t, err)
	for _, id := range []string{"x3", "y2"} {
		l, err := c.Layer(id)
		must(t, err)
		if l.Commit != x.Commit {
			t.Errorf("%s has another commit than x0", id)
		}
	}
	for i := range 4 {
		a, b := statOf(t, fmt.Sprintf("%s/layers/x%d/tree/usr/c", c.Home(), i)), statOf(t, fmt.Sprintf("%s/layers/y%d/tree/usr/c", c.Home(), i))
		if a.Ino != b.Ino {
			t.Errorf("x%d and y%d do not share", i, i)
		}
	}
}

// TestB05ExactLinkCounts looks at st_nlink where programs do.
func TestB05ExactLinkCounts(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	data := makeTar(t, file("etc/cron.d/job", "x"), file("etc/plain", "y"), link("usr/linked", "etc/plain"), file("var/log/l", "z"),
		file("var/lib/l", "z"), file("var/cache/l", "z"), file("usr/first", "w"), link("etc/second", "usr/first"), file("usr/empty", ""), file("var/direct", "d"), file("etcetera/x", "q"))
	want := map[string]uint64{"etc/cron.d/job": 1, "etc/plain": 2, "usr/linked": 2, "var/log/l": 1, "usr/first": 2, "etc/second": 2, "usr/empty": 1, "var/direct": 1}
	for _, shared := range []bool{false, true} {
		c := openCatalog(t, fmt.Sprintf("%s/home-%v", base, shared), layers.Options{SharedLinks: shared})
		apply(t, c, "one", "", data)
		l := apply(t, c, "two", "", data)
		for p, n := range want {
			if st := statOf(t, l.TreeDir()+"/"+p); (st.Nlink == n) == shared && p != "usr/empty" {
				t.Errorf("shared %v: %s has %d links", shared, p, st.Nlink)
			}
		}
		for _, p := range []string{"var/lib/l", "var/cache/l", "etcetera/x"} {
			if st := statOf(t, l.TreeDir()+"/"+p); st.Nlink < 2 {
				t.Errorf("shared %v: %s is not shared", shared, p)
			}
		}
	}
}

// TestTimesOption has one file with two times: exact keeps both, shared keeps the first.
func TestTimesOption(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	for _, shared := range []bool{false, true} {
		c := openCatalog(t, fmt.Sprintf("%s/home-%v", base, shared), layers.Options{SharedTimes: shared})
		one := apply(t, c, "one", "", makeTar(t, file("usr/x", "content")))
		two := apply(t, c, "two", "", makeTar(t, file("usr/x", "content").with(func(h *tar.Header) { h.ModTime = time.Unix(9, 0) })))
		a, b := statOf(t, one.TreeDir()+"/usr/x"), statOf(t, two.TreeDir()+"/usr/x")
		if same := a.Ino == b.Ino; same != shared {
			t.Errorf("shared %v: one inode: %v", shared, same)
		}
		if !shared && b.Mtim.Sec != 9 {
			t.Errorf("time %v", b.Mtim)
		}
		if one.Commit == two.Commit {
			t.Error("the commits do not tell the times apart")
		}
	}
}

// TestMappings has owners moved by id mappings.
func TestMappings(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	o := layers.StageOptions{
		UIDMaps: []layers.IDMap{{ContainerID: 0, HostID: 100000, Size: 1000}, {ContainerID: 5000, HostID: 7, Size: 1}},
		GIDMaps: []layers.IDMap{{ContainerID: 0, HostID: 200000, Size: 1000}},
	}
	own := func(i item, uid, gid int) item { return i.with(func(h *tar.Header) { h.Uid, h.Gid = uid, gid }) }
	stage := func(items ...item) (*layers.Staged, error) {
		return c.Stage(context.Background(), bytes.NewReader(makeTar(t, items...)), o)
	}
	s, err := stage(own(file("d/x", "1"), 5000, 3), own(dir("e", 0o755), 4, 0))
	must(t, err)
	defer s.Close()
	_, err = c.Create("mapped", "", layers.CreateOptions{RootUID: 100000, RootGID: 200000})
	must(t, err)
	must(t, c.Commit("mapped", s))
	for p, want := range map[string][2]uint32{"": {100000, 200000}, "d": {100000, 200000}, "d/x": {7, 200003}, "e": {100004, 200000}} {
		if st := statOf(t, c.Home()+"/layers/mapped/tree/"+p); st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%q: owner %d:%d, want %v", p, st.Uid, st.Gid, want)
		}
	}
	if _, err := stage(own(file("x", ""), 1000, 0)); err == nil || !strings.Contains(err.Error(), "no mapping") {
		t.Errorf("owner without a mapping: %v", err)
	}
}
