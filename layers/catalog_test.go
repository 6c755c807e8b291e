package layers_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

func TestCatalogLife(t *testing.T) {
	needRoot(t)
	home := tmpfs(t) + "/home"
	c := openCatalog(t, home, layers.Options{})
	data := makeTar(t, dir("./", 0o711), file("usr/x", "1"))
	base := apply(t, c, "Base_1", "", data)
	if base.Parent != "" || base.Ancestors != nil || !base.Applied() || base.ReadWrite {
		t.Errorf("record: %+v", base)
	}
	if ref, err := c.Repo().Ref("layer/Base__1"); err != nil || ref != base.Commit {
		t.Errorf("ref: %v, %v", ref, err)
	}
	rw, err := c.Create("c.1", "Base_1", layers.CreateOptions{ReadWrite: true})
	must(t, err)
	if st := statOf(t, rw.DiffDir()); st.Mode&0o7777 != 0o711 {
		t.Errorf("root has mode %o, not the parent's", st.Mode)
	}
	if loose, err := rw.Loose(); err != nil || !loose {
		t.Errorf("container is loose: %v, %v", loose, err)
	}
	top := apply(t, c, "top", "Base_1", makeTar(t, file("usr/y", "2")))
	if !slices.Equal(top.Ancestors, []string{"Base_1"}) {
		t.Errorf("ancestors %q", top.Ancestors)
	}
	if st := statOf(t, top.TreeDir()); st.Mode&0o7777 != 0o711 {
		t.Errorf("root of the tree has mode %o, not the parent's", st.Mode)
	}
	chain, err := layers.Catalogs{c}.Chain("top")
	must(t, err)
	if len(chain) != 2 || chain[1].ID != "Base_1" || chain[1].Commit != base.Commit {
		t.Errorf("chain %+v", chain)
	}
	ids, err := c.IDs()
	must(t, err)
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"Base_1", "c.1", "top"}) {
		t.Errorf("ids %q", ids)
	}
	for id, want := range map[string]error{"top": layers.ErrExists, "c.1": layers.ErrUnknown, "nobody": layers.ErrUnknown} {
		s, err := c.Stage(context.Background(), bytes.NewReader(data), layers.StageOptions{})
		must(t, err)
		if err := c.Commit(id, s); !errors.Is(err, want) {
			t.Errorf("commit to %s: %v", id, err)
		}
		must(t, s.Close())
	}
	removeAll(t, c, "top", "c.1", "Base_1")
	if _, err := c.Remove("top"); !errors.Is(err, layers.ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	if left := countFiles(t, home+"/repo/objects"); left != 0 {
		t.Errorf("%d objects left", left)
	}
}

func removeAll(t testing.TB, c *layers.Catalog, ids ...string) {
	t.Helper()
	for _, id := range ids {
		cleanup, err := c.Remove(id)
		must(t, err)
		if c.Exists(id) {
			t.Errorf("%s exists after Remove", id)
		}
		must(t, cleanup())
	}
}

func countFiles(t testing.TB, dir string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	return n
}

func TestCreateReplaces(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	apply(t, c, "x", "", makeTar(t, file("a", "1")))
	must(t, os.Mkdir(c.Home()+"/layers/torn", 0o700)) // what a crash leaves
	for _, id := range []string{"x", "torn"} {
		l, err := c.Create(id, "", layers.CreateOptions{})
		must(t, err)
		if l.Applied() || c.Exists(id) == false {
			t.Errorf("%s: %+v", id, l)
		}
		if _, err := os.Stat(l.TreeDir()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s has a tree: %v", id, err)
		}
	}
	if _, err := c.Repo().Ref("layer/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ref of what was replaced: %v", err)
	}
	if _, err := c.Create("y", "nobody", layers.CreateOptions{}); !errors.Is(err, layers.ErrUnknown) {
		t.Errorf("unknown parent: %v", err)
	}
	for _, id := range []string{"", ".", "..", "a/b", ".x", "a\x00", strings.Repeat("x", 201), strings.Repeat("_", 101)} {
		if _, err := c.Create(id, "", layers.CreateOptions{}); err == nil {
			t.Errorf("id %q was taken", id)
		}
	}
}

func TestOpenCatalogRefuses(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	tests := []struct {
		name string
		make func(t *testing.T, home string)
		want string
	}{
		{"another driver's home", func(t *testing.T, home string) { must(t, os.MkdirAll(home+"/l", 0o755)) }, "another driver"},
		{"a later format", func(t *testing.T, home string) { writeFile(t, home+"/version", `{"format":2}`) }, "format 2"},
		{"an unknown feature", func(t *testing.T, home string) {
			writeFile(t, home+"/version", `{"format":1,"incompatible":["erofs"]}`)
		}, "erofs"},
		{"a feature for readers", func(t *testing.T, home string) { writeFile(t, home+"/version", `{"format":1,"read_only":["shiny"]}`) }, "shiny"},
		{"no version", func(t *testing.T, home string) { writeFile(t, home+"/version", "1.0\n") }, "not one of this driver"},
		{"layers on another mount", func(t *testing.T, home string) {
			must(t, os.Mkdir(home+"/layers", 0o755))
			must(t, unix.Mount("tmpfs", home+"/layers", "tmpfs", 0, "size=1m"))
			t.Cleanup(func() { must(t, unix.Unmount(home+"/layers", unix.MNT_DETACH)) })
		}, "different mounts"},
		{"layers bind-mounted", func(t *testing.T, home string) {
			must(t, os.Mkdir(home+"/layers", 0o755))
			must(t, unix.Mount(home+"/layers", home+"/layers", "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(home+"/layers", unix.MNT_DETACH)) })
		}, "different mounts"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := filepath.Join(base, strings.ReplaceAll(tt.name, " ", "-"))
			must(t, os.MkdirAll(home, 0o700))
			tt.make(t, home)
			c, err := layers.OpenCatalog(home, layers.Options{})
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, layers.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestNoHardlinks opens a home on a filesystem that has none.
func TestNoHardlinks(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	image := base + "/vfat"
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 8<<20))
	dir := base + "/mnt"
	must(t, os.Mkdir(dir, 0o700))
	if out, err := run("sh", "-c", "mkfs.vfat "+image+" && mount -o loop "+image+" "+dir); err != nil {
		t.Skipf("no vfat here: %v: %s", err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	c, err := layers.OpenCatalog(dir+"/home", layers.Options{})
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, layers.ErrUnsupported) || !strings.Contains(err.Error(), "link") {
		t.Errorf("error %v", err)
	}
}

func TestReadOnlyCatalog(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	c := openCatalog(t, base+"/home", layers.Options{})
	l := apply(t, c, "x", "", makeTar(t, file("a", "1")))
	before := storeFiles(t, base+"/home")
	ro, err := layers.OpenCatalog(base+"/home", layers.Options{ReadOnly: true})
	must(t, err)
	defer ro.Close()
	both := layers.Catalogs{openCatalog(t, base+"/other", layers.Options{}), ro}
	found, err := both.Find("x")
	if err != nil || found.Commit != l.Commit || found.Catalog() != ro {
		t.Errorf("found %+v, %v", found, err)
	}
	chain, err := both.Chain("x")
	must(t, err)
	s, err := both[0].Stage(context.Background(), bytes.NewReader(makeTar(t, file("a", "1"))), layers.StageOptions{Chain: chain})
	must(t, err)
	defer s.Close()
	_, err = both[0].Create("child", "x", layers.CreateOptions{Chain: chain})
	must(t, err)
	must(t, both[0].Commit("child", s))
	if after := storeFiles(t, base+"/home"); !slices.Equal(before, after) {
		t.Error("a read-only home changed")
	}
	if _, err := layers.OpenCatalog(base+"/none", layers.Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open a home that is not there: %v", err)
	}
}

func TestLayerOpen(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 30) // beyond PATH_MAX
	l := apply(t, c, "x", "", makeTar(t, file("d/x", "1"), symlink("l", "/d"), file("l/y", "2"), file("x", "old"), file("./x", "new"),
		symlink("out", "/etc/../.."), file("a/../b", "3"), link("d/z", "d/x"), file(deep+"x", "4")))
	for name, want := range map[string]string{"d/x": "1", "./d/x": "1", "/l/y": "2", "d/y": "2", "x": "new", "a/../b": "3", "d/z": "1", "../x": "new", deep + "x": "4"} {
		f, err := l.Open(name)
		if err != nil {
			t.Errorf("%.80q: %v", name, err)
			continue
		}
		b, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		if string(b) != want {
			t.Errorf("%.80q has %q, want %q", name, b, want)
		}
	}
	for _, name := range []string{"nothing", "d", "l", "", ".", "out/passwd", "x/y"} {
		if f, err := l.Open(name); err == nil {
			f.Close()
			t.Errorf("%q was opened", name)
		}
	}
}

func TestWalkCommitRefusesOthers(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	nothing := func(*layers.Entry) error { return nil }
	if err := layers.WalkCommit(context.Background(), c.Repo(), object.Checksum{1}, nothing); err == nil {
		t.Error("walked a commit that is not there")
	}
}

// TestStagesOfOneTar stages and commits one tar many times at once.
func TestStagesOfOneTar(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	var items []item
	for i := range 300 {
		items = append(items, file("usr/f"+strings.Repeat("x", i%40)+string(rune('a'+i%26)), strings.Repeat("c", i)))
	}
	data := makeTar(t, items...)
	errs := make(chan error)
	const n = 6
	for i := range n {
		go func() {
			_, err := tryApply(c, "layer"+string(rune('a'+i)), "", data)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	first, err := c.Layer("layera")
	must(t, err)
	for i := range n {
		l, err := c.Layer("layer" + string(rune('a'+i)))
		must(t, err)
		if l.Commit != first.Commit {
			t.Error("commits differ")
		}
		compareTrees(t, describeTree(t, first.TreeDir(), true), describeTree(t, l.TreeDir(), true))
	}
}
