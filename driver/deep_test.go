package driver_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// smallTar has one file in a directory that every layer has, and removes the one of the layer before the last.
func smallTar(t *testing.T, i int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}))
	text := fmt.Sprintf("layer %d", i)
	must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d/%d", i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}))
	_, err := w.Write([]byte(text))
	must(t, err)
	if i >= 2 {
		must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d/.wh.%d", i-2), Typeflag: tar.TypeReg}))
	}
	must(t, w.Close())
	return b.Bytes()
}

// noSegments is more layers than any chain has.
const noSegments = 1 << 20

// TestDeepChain mounts more layers than overlayfs takes, which were pulled before there were segments.
func TestDeepChain(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 520 layers")
	}
	const depth = 520
	dir := filepath.Join(testfs.Mount(t, "ext4"), strings.Repeat("long", 50))
	must(t, os.Mkdir(dir, 0o700))
	restore := driver.SetSegment(noSegments)
	defer restore()
	d := open(t, dir, "sync=none")
	parent := ""
	for i := range depth {
		id := fmt.Sprintf("l%d", i)
		apply(t, d, id, parent, smallTar(t, i))
		parent = id
	}
	// As many lowers as there can be, and what others read of it.
	most := fmt.Sprintf("l%d", overlay.MaxLowers-1)
	root, err := d.Get(most, driver.MountOptions{Options: []string{"ro"}})
	must(t, err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, " "+root+" ") && len(line) >= bufio.MaxScanTokenSize {
			t.Errorf("the mount has a line of %d bytes, and most programs read %d", len(line), bufio.MaxScanTokenSize)
		}
	}
	must(t, d.Put(most))
	must(t, d.Cleanup())
	restore()
	d = open(t, dir, "sync=none")
	for _, id := range []string{"a", "b"} {
		must(t, d.CreateReadWrite(id, parent, nil))
		root, err := d.Get(id, driver.MountOptions{})
		must(t, err)
		names, err := os.ReadDir(filepath.Join(root, "d"))
		must(t, err)
		if len(names) != 2 || names[0].Name() != fmt.Sprint(depth-2) || names[1].Name() != fmt.Sprint(depth-1) {
			t.Errorf("container %s shows %v", id, names)
		}
		must(t, os.WriteFile(filepath.Join(root, "d", fmt.Sprint(depth-1)), []byte("changed"), 0o600))
		must(t, d.Put(id))
	}
	// What the segments show are the inodes of the layers.
	var in, out syscall.Stat_t
	top, name := fmt.Sprintf("l%d", 8*64-1), filepath.Join("d", fmt.Sprint(8*64-1))
	must(t, syscall.Lstat(filepath.Join(home(dir), "layers", top, "tree", name), &in))
	must(t, syscall.Lstat(filepath.Join(home(dir), "layers", top, "segment", "tree", name), &out))
	if in.Ino != out.Ino {
		t.Error("the segment is a copy")
	}
	checkStore(t, dir)
	for _, id := range []string{"a", "b", parent} {
		must(t, d.Remove(id))
	}
	checkStore(t, dir)
}
