package driver_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// linksTar has a directory with a file of two names, an equal file of its own, and a file of a user outside most ranges.
func linksTar(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	at := time.Unix(1_500_000_000, 0)
	for _, h := range []*tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at},
		{Name: "d/first", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 4, ModTime: at},
		{Name: "d/second", Typeflag: tar.TypeLink, Linkname: "d/first", Mode: 0o4755, ModTime: at},
		{Name: "d/third", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 4, ModTime: at},
		{Name: "far", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4, Uid: 70000, Gid: 70000, ModTime: at},
	} {
		must(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write([]byte("same"))
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

// TestRemap changes owners by copying: names of one file stay that, and those of equal files do not become it; a directory keeps its
// time; an owner outside the new range becomes the overflow id.
func TestRemap(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		d := open(t, dir)
		apply(t, d, "img", "", linksTar(t))
		must(t, d.CreateReadWrite("c", "img", nil))
		must(t, d.UpdateLayerIDMap("c", driver.Mappings{}, mapped(100000), ""))
		root, err := d.Get("c", driver.MountOptions{Mappings: mapped(100000), Unmapped: true})
		must(t, err)
		wantOwner(t, root, 100000, 100000)
		for _, name := range []string{"d", "d/first", "d/second", "d/third"} {
			wantOwner(t, filepath.Join(root, name), 100000, 100000)
		}
		wantOwner(t, filepath.Join(root, "far"), 65534, 65534)
		stat := func(name string) os.FileInfo {
			fi, err := os.Lstat(filepath.Join(root, "d", name))
			must(t, err)
			return fi
		}
		if !os.SameFile(stat("first"), stat("second")) {
			t.Error("a hardlink became two files")
		}
		if os.SameFile(stat("first"), stat("third")) {
			t.Error("two files became one")
		}
		if at := stat("").ModTime(); at.Unix() != 1_500_000_000 {
			t.Errorf("the directory has the time %v", at)
		}
		if stat("second").Mode()&os.ModeSetuid == 0 {
			t.Error("setuid is gone")
		}
		must(t, d.Put("c"))
		wantChanges(t, d, "c", "img")
		checkStore(t, dir)
	})
}

// TestRemapTwice changes owners of what has been changed before. Files of root that a mount without mappings showed are the
// container's root's, and those of nobody in the first range are refused.
func TestRemapTwice(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	must(t, d.Create("one", "", &driver.CreateOptions{Mappings: mapped(100000)}))
	root, err := d.Get("one", driver.MountOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "root"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(root, "user"), nil, 0o600))
	must(t, os.Lchown(filepath.Join(root, "user"), 100007, 100008))
	must(t, d.Put("one"))
	must(t, d.Create("two", "one", &driver.CreateOptions{Mappings: mapped(200000)}))
	must(t, d.UpdateLayerIDMap("two", mapped(100000), mapped(200000), ""))
	root, err = d.Get("two", driver.MountOptions{})
	must(t, err)
	wantOwner(t, filepath.Join(root, "root"), 200000, 200000)
	wantOwner(t, filepath.Join(root, "user"), 200007, 200008)
	must(t, os.Lchown(filepath.Join(root, "user"), 7, 8))
	must(t, d.Put("two"))
	must(t, d.Create("three", "two", &driver.CreateOptions{Mappings: mapped(300000)}))
	if err := d.UpdateLayerIDMap("three", mapped(200000), mapped(300000), ""); !errors.Is(err, driver.ErrOption) {
		t.Errorf("an owner in no range: %v", err)
	}
	checkStore(t, dir)
}
