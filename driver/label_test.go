package driver_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
)

const storeLabel = "system_u:object_r:container_ro_file_t:s0"

// labelledTar has files with a label of the image's own, and the size of them all. One of them is too large to be held in memory, one is equal
// to another. There are a directory, a symlink, a fifo, an empty file and a whiteout as well.
func labelledTar(t testing.TB, n int) ([]byte, int64) {
	t.Helper()
	var b bytes.Buffer
	var sum int64
	w := tar.NewWriter(&b)
	for i := range n {
		size := 1 << 20
		if i == 0 {
			size = 9 << 20
		}
		sum += int64(size)
		h := &tar.Header{
			Name: "f" + string(rune('a'+i)), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size),
			PAXRecords: map[string]string{"SCHILY.xattr.security.selinux": "image_u:object_r:image_t:s0\x00", "SCHILY.xattr.user.kept": "yes"},
		}
		must(t, w.WriteHeader(h))
		_, err := w.Write([]byte(strings.Repeat(string(rune('a'+i)), size)))
		must(t, err)
	}
	label := map[string]string{"SCHILY.xattr.security.selinux": "image_u:object_r:image_t:s0\x00"}
	for _, h := range []*tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750}, {Name: "d/link", Typeflag: tar.TypeSymlink, Linkname: "x"},
		{Name: "d/link2", Typeflag: tar.TypeSymlink, Linkname: "x"}, {Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "d/empty", Typeflag: tar.TypeReg, Mode: 0o600}, {Name: ".wh.gone", Typeflag: tar.TypeReg},
		{Name: "d/a", Typeflag: tar.TypeReg, Size: 3}, {Name: "d/b", Typeflag: tar.TypeReg, Size: 3},
	} {
		h.PAXRecords = label
		must(t, w.WriteHeader(h))
		_, err := w.Write(make([]byte, h.Size))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes(), sum
}

// wantLabels compares the label of every inode that the repository's objects and a layer's tree have.
func wantLabels(t *testing.T, d *driver.Driver, dir, id, want string) {
	t.Helper()
	n := 0
	look := func(root, suffix string) {
		before := n
		defer func() {
			if n == before {
				t.Errorf("%s: nothing to look at", root)
			}
		}()
		must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			must(t, err)
			if suffix != "" && !strings.HasSuffix(path, suffix) || suffix == ".1" && e.IsDir() {
				return nil
			}
			n++
			b := make([]byte, 200)
			size, err := unix.Lgetxattr(path, "security.selinux", b)
			got := strings.TrimSuffix(string(b[:max(size, 0)]), "\x00")
			if got != want || want == "" && err != unix.ENODATA {
				t.Errorf("%s: label %q, %v; want %q", path, got, err, want)
			}
			return nil
		}))
	}
	look(filepath.Join(dir, "ostree", "repo", "objects"), ".file")
	look(filepath.Join(dir, "ostree", "repo", "extensions", "ostree-storage", "lanes"), ".1")
	look(filepath.Join(dir, "ostree", "layers", id, "tree"), "")
	if n < 20 {
		t.Errorf("only %d inodes were looked at", n)
	}
	if got := status(t, d, "Store label"); want != "" && got != want {
		t.Errorf("status says %q", got)
	}
}

// wantFsck runs the real ostree on a graphroot's repository.
func wantFsck(t *testing.T, root string) {
	t.Helper()
	if _, err := exec.LookPath("ostree"); err != nil {
		t.Log("not checked with ostree: it is not installed")
		return
	}
	if out, err := exec.Command("ostree", "fsck", "--quiet", "--repo="+filepath.Join(root, "ostree", "repo")).CombinedOutput(); err != nil {
		t.Errorf("ostree fsck: %v: %s", err, out)
	}
}

// second opens another graphroot on the same filesystem.
func second(t *testing.T, dir, name string, settings ...string) (*driver.Driver, string) {
	t.Helper()
	root := filepath.Join(dir, name)
	o := options(dir, settings...)
	o.Root, o.RunRoot = root, filepath.Join(dir, name+"-run")
	d, err := driver.New(filepath.Join(root, "ostree"), o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Cleanup()) })
	return d, root
}

// TestStoreLabel has one label on every inode of a store, and none of the image's. Another store with the same label links to its
// objects; one with another label, or none, does not, and shares the blocks where the filesystem can.
func TestStoreLabel(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		d := open(t, dir, "store_label="+storeLabel)
		root := filepath.Dir(home(dir))
		b, size := labelledTar(t, 8)
		apply(t, d, "img", "", b)
		wantLabels(t, d, root, "img", storeLabel)
		must(t, d.CreateReadWrite("ctr", "img", nil))
		merged, err := d.Get("ctr", driver.MountOptions{})
		must(t, err)
		if n, err := unix.Lgetxattr(filepath.Join(merged, "fa"), "user.kept", make([]byte, 9)); err != nil || n != 3 {
			t.Errorf("an attribute beside the label is gone: %v", err)
		}
		must(t, d.Put("ctr"))
		wantFsck(t, root)
		checkStore(t, dir)

		share := "share_with=" + filepath.Join(root, "ostree", "repo")
		inode := func(root string) uint64 {
			fi, err := os.Lstat(filepath.Join(root, "ostree", "layers", "img", "tree", "fa"))
			must(t, err)
			return fi.Sys().(*syscall.Stat_t).Ino
		}
		for _, other := range []struct {
			name, label string
			linked      bool
		}{{"same", storeLabel, true}, {"other", "system_u:object_r:usr_t:s0", false}, {"none", "", false}} {
			setting := "store_label=" + other.label
			if other.label == "" {
				setting = "store_label=none"
			}
			before := usedBytes(t, dir)
			e, eroot := second(t, dir, other.name, setting, share)
			apply(t, e, "img", "", b)
			took := usedBytes(t, dir) - before
			wantLabels(t, e, eroot, "img", other.label)
			if linked := inode(eroot) == inode(root); linked != other.linked {
				t.Errorf("%s label: linked is %v", other.name, linked)
			}
			reflink := status(t, e, "Reflink") == "true"
			t.Logf("%s label: %d bytes for %d", other.name, took, size)
			if (other.linked || reflink) && took > size/4 {
				t.Errorf("%s label: %d bytes for %d with reflink=%v", other.name, took, size, reflink)
			}
			wantBlocksShared(t, root, eroot, other.linked || reflink)
			wantFsck(t, eroot)
			must(t, e.Remove("img"))
		}
		wantLabels(t, d, root, "img", storeLabel)
		wantFsck(t, root)
	})
}

// wantBlocksShared compares where the files of two layers are on the device.
func wantBlocksShared(t *testing.T, root, other string, want bool) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "ostree", "layers", "img", "tree", "f?"))
	must(t, err)
	if len(paths) < 8 {
		t.Errorf("only %d files", len(paths))
	}
	for _, path := range paths {
		a, err := testfs.Extents(path)
		must(t, err)
		b, err := testfs.Extents(filepath.Join(other, strings.TrimPrefix(path, root)))
		must(t, err)
		if shared := slices.Equal(a, b); shared != want || len(a) == 0 {
			t.Errorf("%s: shares its blocks: %v; %v, %v", path, shared, a, b)
		}
	}
}

// TestStoreLabelRefused has a clear error at once where the filesystem takes no label, and makes no repository.
func TestStoreLabelRefused(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("no filesystem without attributes to test on: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	path := filepath.Join(dir, "repo")
	_, err := store.Init(path, store.Options{Label: storeLabel})
	if !errors.Is(err, store.ErrUnsupported) || !strings.Contains(err.Error(), "refuses the store label") {
		t.Errorf("on ramfs: %v", err)
	}
	if _, err := os.Stat(filepath.Join(path, "objects")); err == nil {
		t.Error("there is a repository")
	}
}
