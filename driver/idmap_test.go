package driver_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// ownersTar has files of root, of user 1000 and a setuid program, and the size of them all.
func ownersTar(t testing.TB) ([]byte, int64) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var size int64
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "root", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4096},
		{Name: "user", Typeflag: tar.TypeReg, Mode: 0o600, Size: 4096, Uid: 1000, Gid: 1000},
		{Name: "su", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 4096},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(strings.Repeat(h.Name[:1], int(h.Size)))); err != nil {
				t.Fatal(err)
			}
			size += h.Size
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), size
}

// apply makes an image layer.
func apply(t testing.TB, d *driver.Driver, id, parent string, b []byte) int64 {
	t.Helper()
	must(t, d.Create(id, parent, nil))
	n, err := d.ApplyDiff(id, driver.ApplyOptions{Diff: bytes.NewReader(b)})
	must(t, err)
	return n
}

func mapped(host int) driver.Mappings {
	m := []driver.IDMap{{ContainerID: 0, HostID: host, Size: 65536}}
	return driver.Mappings{UIDs: m, GIDs: m}
}

// wantOwners compares the owners and modes that a mount shows.
func wantOwners(t *testing.T, root string, host int) {
	t.Helper()
	for name, want := range map[string]struct {
		uid  int
		mode fs.FileMode
	}{
		".":    {0, fs.ModeDir | 0o755},
		"root": {0, 0o644},
		"user": {1000, 0o600},
		"su":   {0, fs.ModeSetuid | 0o755},
	} {
		fi, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if uid := int(fi.Sys().(*syscall.Stat_t).Uid); uid != want.uid+host || fi.Mode() != want.mode {
			t.Errorf("%s: owner %d, mode %v; want %d, %v", name, uid, fi.Mode(), want.uid+host, want.mode)
		}
	}
}

// TestShifting mounts one image with several owners at once, and no file is copied.
func TestShifting(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		d := open(t, dir)
		b, _ := ownersTar(t)
		apply(t, d, "img", "", b)
		if !d.SupportsShifting(mapped(100000)) {
			t.Skip("the kernel has no idmapped lowers for this filesystem")
		}
		for id, host := range map[string]int{"a": 100000, "b": 200000, "c": 0} {
			maps := driver.Mappings{}
			if host != 0 {
				maps = mapped(host)
			}
			must(t, d.CreateReadWrite(id, "img", &driver.CreateOptions{Mappings: maps}))
			root, err := d.Get(id, driver.MountOptions{Mappings: maps})
			must(t, err)
			wantOwners(t, root, host)
			if u, err := d.ReadWriteDiskUsage(id); err != nil || u.Size != 0 {
				t.Errorf("container %s takes %d bytes, %v", id, u.Size, err)
			}
			defer func() { must(t, d.Put(id)) }()
		}
		must(t, d.Create("view", "img", nil))
		root, err := d.Get("view", driver.MountOptions{Mappings: mapped(300000), Options: []string{"ro"}})
		must(t, err)
		defer func() { must(t, d.Put("view")) }()
		if fi, err := os.Lstat(filepath.Join(root, "user")); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 301000 {
			t.Errorf("read-only: %v", err)
		}
	})
}

// TestUpdateLayerIDMap changes the owners of a layer's view without idmapped mounts. Objects stay as they are, and what was
// copied is no change of the layer's own.
func TestUpdateLayerIDMap(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		d := open(t, dir)
		b, size := ownersTar(t)
		if n := apply(t, d, "img", "", b); n != size {
			t.Errorf("size %d, want %d", n, size)
		}
		must(t, d.CreateFromTemplate("mapped", "img", "", nil, false))
		must(t, d.UpdateLayerIDMap("mapped", driver.Mappings{}, mapped(100000), ""))
		must(t, d.CreateReadWrite("ctr", "mapped", nil))
		root, err := d.Get("ctr", driver.MountOptions{})
		must(t, err)
		wantNames(t, root, 100000)
		must(t, os.WriteFile(filepath.Join(root, "new"), nil, 0o600))
		must(t, d.Put("ctr"))
		wantChanges(t, d, "ctr", "mapped", "A /new")
		wantChanges(t, d, "mapped", "img")
		g, err := d.DiffGetter("mapped")
		must(t, err)
		f, err := g.Get("./user")
		must(t, err)
		must(t, f.Close())
		must(t, g.Close())

		must(t, d.CreateReadWrite("rw", "img", nil))
		must(t, d.UpdateLayerIDMap("rw", driver.Mappings{}, mapped(200000), ""))
		root, err = d.Get("rw", driver.MountOptions{Mappings: driver.Mappings{}})
		must(t, err)
		wantNames(t, root, 200000)
		must(t, d.Put("rw"))
		wantChanges(t, d, "rw", "img")
		// A layer of an image whose owners differ from those below gets them before its content.
		must(t, d.Create("over", "img", nil))
		must(t, d.UpdateLayerIDMap("over", driver.Mappings{}, mapped(300000), ""))
		b, _ = ownersTar(t)
		_, err = d.ApplyDiff("over", driver.ApplyOptions{Diff: bytes.NewReader(b), Mappings: mapped(300000)})
		must(t, err)
		must(t, d.CreateReadWrite("ctr2", "over", nil))
		root, err = d.Get("ctr2", driver.MountOptions{})
		must(t, err)
		wantNames(t, root, 300000)
		must(t, d.Put("ctr2"))
		wantChanges(t, d, "ctr2", "over")
		wantChanges(t, d, "ctr2", "img", "C /root", "C /su", "C /user")

		if err := d.UpdateLayerIDMap("img", driver.Mappings{}, mapped(1), ""); err == nil {
			t.Error("the owners of an image's layer were changed")
		}
		checkStore(t, dir)
	})
}

// wantNames is wantOwners without the root directory, which gets its owner with each mount.
func wantNames(t *testing.T, root string, host int) {
	t.Helper()
	for name, uid := range map[string]int{"root": 0, "user": 1000, "su": 0} {
		fi, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := int(fi.Sys().(*syscall.Stat_t).Uid); got != uid+host {
			t.Errorf("%s belongs to %d, want %d", name, got, uid+host)
		}
		if name == "su" && fi.Mode()&fs.ModeSetuid == 0 {
			t.Error("setuid is gone")
		}
	}
}

func wantChanges(t *testing.T, d *driver.Driver, id, parent string, want ...string) {
	t.Helper()
	changes, err := d.Changes(id, driver.Mappings{}, parent, driver.Mappings{}, "")
	if err != nil {
		t.Error(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.String())
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("changes of %s over %s are %q, want %q", id, parent, got, want)
	}
}

// checkStore checks the repository of a graphroot in dir.
func checkStore(t testing.TB, dir string) {
	t.Helper()
	r, err := store.Open(filepath.Join(home(dir), "repo"))
	must(t, err)
	storetest.Check(t, r)
	must(t, r.Close())
}

// TestApplyRefuses lays no tar over what somebody sees.
func TestApplyRefuses(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	b, _ := ownersTar(t)
	applyTo := func(id string) error {
		_, err := d.ApplyDiff(id, driver.ApplyOptions{Diff: bytes.NewReader(b)})
		return err
	}
	apply(t, d, "full", "", b)
	if err := applyTo("full"); err == nil {
		t.Error("a layer got content twice")
	}
	must(t, d.Create("mounted", "", nil))
	root, err := d.Get("mounted", driver.MountOptions{})
	must(t, err)
	if err := applyTo("mounted"); err == nil {
		t.Error("a mounted layer got content")
	}
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o600))
	must(t, d.Put("mounted"))
	if err := applyTo("mounted"); err == nil {
		t.Error("a layer that was written got content")
	}
	if err := applyTo("unknown"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := d.StageDiff("unknown", driver.ApplyOptions{Diff: bytes.NewReader(b)}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown parent: %v", err)
	}
	mask := os.FileMode(0o700)
	if _, err := d.StageDiff("", driver.ApplyOptions{Diff: bytes.NewReader(b), ForceMask: &mask}); !errors.Is(err, driver.ErrNotSupported) {
		t.Errorf("force mask: %v", err)
	}
	checkStore(t, dir)
}
