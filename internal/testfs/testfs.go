// Package testfs makes fresh ext4, xfs and btrfs filesystems for tests: each is
// a sparse image behind a loop device, mounted for one test and gone after it.
//
// The tests of this module need filesystems whose limits and crash behaviour
// differ (link limit, reflinks, what survives a power cut), and a place that
// creates files quickly whatever the machine's own disk does. Root is needed;
// without it, without loop devices or without the mkfs program of a kind, Mount
// skips the test and says why.
package testfs

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// Kinds are the filesystems that Each runs a test on.
var Kinds = []string{"ext4", "xfs", "btrfs"}

// DefaultSize is the size of an image, in bytes. Images are sparse: what is
// never written costs nothing.
const DefaultSize = 4 << 30

// Mount returns the root of a fresh filesystem of the given kind, which is
// unmounted, with everything mounted below it, when the test ends. The test
// fails if something of this process still holds the filesystem then.
func Mount(t testing.TB, kind string) string {
	t.Helper()
	return MountOptions(t, kind, Options{})
}

// MountOptions is Mount with a size and other choices.
func MountOptions(t testing.TB, kind string, o Options) string {
	t.Helper()
	f, err := New(kind, o)
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("no %s filesystem to test on: %v", kind, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close the %s filesystem of the test: %v", kind, err)
		}
	})
	return f.Dir
}

// Each runs f once on each kind of filesystem, as a subtest named for the kind.
func Each(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	for _, kind := range Kinds {
		t.Run(kind, func(t *testing.T) { f(t, Mount(t, kind)) })
	}
}

// ErrUnsupported is matched by what New returns where filesystems cannot be
// made: not root, no loop devices, no mkfs program, no such filesystem in the
// kernel.
var ErrUnsupported = errors.New("not possible here")

// Options are choices for a filesystem; the zero value is what tests want.
type Options struct {
	Size  int64    // of the image, in bytes; 0 means DefaultSize
	Image string   // directory for the image; "" means the fastest place there is
	Mkfs  []string // further arguments for mkfs
	Mount string   // mount options, as mount(2) takes them
}

// imageDir returns the directory where images are made: memory if there is
// plenty of it, since what is tested is this module and not the disk.
func (o *Options) imageDir() string {
	if o.Image != "" {
		return o.Image
	}
	if dir := os.Getenv("TESTFS_IMAGES"); dir != "" {
		return dir
	}
	if plentyOfMemory() {
		return "/dev/shm"
	}
	return os.TempDir()
}

func plentyOfMemory() bool {
	free, err := freeBytes("/dev/shm")
	return err == nil && free > 6<<30
}

// byDir returns the open filesystem that is mounted on dir.
func byDir(dir string) (*FS, error) {
	mounted.Lock()
	defer mounted.Unlock()
	f := mounted.m[dir]
	if f == nil {
		return nil, fmt.Errorf("no filesystem of this package is mounted on %s", dir)
	}
	return f, nil
}
