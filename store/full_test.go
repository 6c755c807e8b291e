package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// fillDisk leaves no block and no inode of a filesystem free. What it writes goes with the directory that it returns.
func fillDisk(t *testing.T, top string) string {
	t.Helper()
	dir := top + "/ballast"
	must(t, os.Mkdir(dir, 0o700))
	f, err := os.Create(dir + "/data")
	must(t, err)
	defer f.Close()
	for again := range 3 { // what was freed a moment ago comes back with the next commit of the journal
		for size := 1 << 20; size >= 512; {
			if _, err := f.Write(make([]byte, size)); err == nil {
				continue
			} else if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
		for i := 0; ; i++ {
			err := os.Mkdir(fmt.Sprintf("%s/%d-%d", dir, again, i), 0o700)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			must(t, err)
		}
		must(t, unix.Syncfs(int(f.Fd())))
	}
	return dir
}

// TestB11Full: on a filesystem that is full to the last block nothing can be stored, and everything can be removed.
func TestB11Full(t *testing.T) {
	sizes := map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20, "btrfs": 160 << 20}
	for _, kind := range testfs.Kinds {
		t.Run(kind, func(t *testing.T) {
			top := testfs.MountOptions(t, kind, testfs.Options{Size: sizes[kind]})
			w := newWorld(t, top)
			must(t, w.apply("base", StageOptions{}, baseFiles...))
			must(t, w.apply("next", StageOptions{}, nextFiles...))
			objects, lanes := w.count()
			fillDisk(t, top)
			err := w.apply("third", StageOptions{}, testFile{name: "x", body: string(make([]byte, 1<<20))})
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("a layer on a full disk: %v", err)
			}
			_, err = w.repo.Recover(context.Background())
			must(t, err)
			w.check("after the failure")
			if o, l := w.count(); o != objects || l != lanes {
				t.Errorf("%d objects and %d lanes after the failure, want %d and %d", o, l, objects, lanes)
			}
			must(t, w.reap("next"))
			w.check("after the first removal")
			must(t, w.reap("base"))
			w.exact(t, nil)
		})
	}
}
