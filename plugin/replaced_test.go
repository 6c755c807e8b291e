package plugin_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	storage "go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestReplacedDriver has containers/storage take another driver while layers are mounted, read and made, as it does when another
// program has shut the store down. All of that ends well, and nothing of the old drivers stays open.
func TestReplacedDriver(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	percent := debug.SetGCPercent(-1) // which would close what nobody refers to
	defer debug.SetGCPercent(percent)
	s := openStore(t, dir)
	base, change := baseLayer(t), changeLayer(t)
	img := putImage(t, s, "img", base)
	c, err := s.CreateContainer("ctr", nil, img.ID, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.Mount(c.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	takeAnother(t, s)
	write(t, filepath.Join(root, "new"), "new")
	if _, err := s.Unmount(c.ID, false); err != nil {
		t.Fatal(err)
	}
	if mounted, err := overlay.Mounted(root); err != nil || mounted {
		t.Errorf("after the unmount it is mounted: %t, %v", mounted, err)
	}

	tar := bytes.NewReader(change)
	half := io.LimitReader(tar, int64(len(change)/2))
	if _, _, err := s.PutLayer("img-1", "img-0", nil, "", false, nil, io.MultiReader(half, &meanwhile{do: func() { takeAnother(t, s) }}, tar)); err != nil {
		t.Fatal(err)
	}
	uncompressed := archive.Uncompressed
	rc, err := s.Diff("", "img-1", &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		t.Fatal(err)
	}
	takeAnother(t, s)
	b, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil || !bytes.Equal(b, change) {
		t.Errorf("a tar that was begun before: %d bytes, not %d: %v", len(b), len(change), err)
	}
	wantDiff(t, s, "img-0", base)
	wantDiff(t, s, "img-1", change)
	for range 100 {
		takeAnother(t, s)
		if _, err := s.Layer("img-1"); err != nil {
			t.Fatal(err)
		}
	}
	wantSound(t, s)
	closeStore(t, s)
	wantClosed(t, dir)
}

// A meanwhile is read as nothing, and does something then.
type meanwhile struct{ do func() }

func (m *meanwhile) Read([]byte) (int, error) {
	m.do()
	return 0, io.EOF
}

// takeAnother leaves in the store's lock file what another program leaves there that shuts the store down.
func takeAnother(t *testing.T, s storage.Store) {
	t.Helper()
	driver := func() graphdriver.Driver {
		d, err := s.GraphDriver()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	old := driver()
	path := filepath.Join(s.GraphRoot(), "storage.lock")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		b = make([]byte, 64)
	}
	b[0]++
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if driver() == old {
		t.Fatal("containers/storage goes on with the same driver")
	}
}

// wantClosed fails if this process has something open below a directory.
func wantClosed(t *testing.T, dir string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(fds) < 3 {
		t.Fatalf("descriptors: %v, %v", fds, err)
	}
	for _, fd := range fds {
		if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(path, dir+"/") {
			t.Errorf("open: %s", path)
		}
	}
}
