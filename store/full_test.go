package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

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

// TestB11FullOfOthers: who opens a repository on a filesystem that others have filled has room for a record, as containers/storage writes
// it before it asks for a removal; and the reserve does not take it back before there is more.
func TestB11FullOfOthers(t *testing.T) {
	sizes := map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20, "btrfs": 160 << 20}
	for _, kind := range testfs.Kinds {
		if kind == "btrfs" && os.Getenv("SOAK") == "" {
			t.Log("btrfs only under SOAK: it takes seconds to fill and to empty")
			continue
		}
		t.Run(kind, func(t *testing.T) {
			top := testfs.MountOptions(t, kind, testfs.Options{Size: sizes[kind]})
			w := newWorld(t, top)
			must(t, w.apply("base", StageOptions{}, baseFiles...))
			ballast := fillDisk(t, top)
			if err := writeRecord(top + "/record"); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("the filesystem is not full: %v", err)
			}
			for range 2 { // the second does not take back what the first gave up
				_, err := w.repo.Recover(context.Background())
				must(t, err)
			}
			if err := writeRecord(top + "/record"); err != nil {
				t.Errorf("a record after the repository was opened: %v", err)
			}
			must(t, os.RemoveAll(ballast))
			must(t, os.RemoveAll(top+"/record"))
			for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) { // xfs frees in the background
				_, err := w.repo.Recover(context.Background())
				must(t, err)
				if _, err = os.Stat(w.home + "/repo/" + reserveFile); err == nil {
					break
				} else if time.Since(begin) > 20*time.Second {
					t.Fatalf("with room again there is no reserve: %v", err)
				}
			}
			w.check("at the end")
		})
	}
}

// writeRecord writes a file as containers/storage does its records, of some length.
func writeRecord(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 16<<10))
	return errors.Join(err, f.Sync(), f.Close())
}
