package testfs

import (
	"os"
	"testing"
)

// Memory returns the root of a fresh tmpfs, where there is memory for it: what is the same on every filesystem takes two thirds of the
// processor's time there that it takes on an image behind a loop device. Else it is Mount of ext4.
func Memory(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 || !plentyOfMemory() {
		return Mount(t, "ext4")
	}
	f := &FS{Kind: "tmpfs", device: "tmpfs", mount: "mode=755,nr_inodes=0"}
	if err := f.makeTop(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close the filesystem of the test: %v", err)
		}
	})
	if err := f.mountDevice(); err != nil {
		t.Fatal(err)
	}
	return f.Dir
}
