package store

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// A syncDisk counts syncs.
type syncDisk struct {
	disk
	all, out, dirs int
}

func (d *syncDisk) syncfs(fd int) error   { d.all++; return d.disk.syncfs(fd) }
func (d *syncDisk) writeOut(fd int) error { d.out++; return d.disk.writeOut(fd) }
func (d *syncDisk) syncDir(fd int) error  { d.dirs++; return d.disk.syncDir(fd) }

// TestSmallStagesSyncTheirOwnFiles: a layer of few files is written out file by file, where a journal makes that enough. All that may
// have something else in it syncs the filesystem.
func TestSmallStagesSyncTheirOwnFiles(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, testfs.Mount(t, kind))
			count := func(what string, all bool, apply func() error) {
				t.Helper()
				d := &syncDisk{disk: kernel{}}
				w.on(d)
				must(t, apply())
				if w.on(kernel{}); (d.all > 0) != all || d.dirs != 1 {
					t.Errorf("%s: %d syncfs, %d syncs of a directory, %d files written out", what, d.all, d.dirs, d.out)
				}
			}
			files := pool(20)
			count("a small layer", false, func() error { return w.apply("small", StageOptions{}, files...) })
			count("the same", false, func() error { return w.apply("same", StageOptions{}, files...) })
			count("a large one", true, func() error { return w.apply("large", StageOptions{}, many(maxFresh+1)...) })
			w.alien = true
			count("one with files of others", true, func() error { return w.apply("alien", StageOptions{}, testFile{name: "a", body: "alien"}) })
			w.alien = false
			must(t, w.apply("unsynced", StageOptions{NoSync: true}, testFile{name: "x", body: "unsynced"}))
			count("one beside a layer that is not durable", true, func() error {
				return w.apply("beside", StageOptions{}, testFile{name: "x", body: "unsynced"})
			})
			count("the next", false, func() error { return w.apply("next", StageOptions{}, testFile{name: "y", body: "next"}) })
			w.check("after all")
		})
	}
}

func many(n int) (list []testFile) {
	for i := range n {
		list = append(list, testFile{name: fmt.Sprintf("many%03d", i), body: fmt.Sprint("one of many: ", i)})
	}
	return list
}

// TestKnownStreamsAreNotWrittenOut: of a large file that the repository turns out to have, nothing that was written before need reach the disk.
func TestKnownStreamsAreNotWrittenOut(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	f := testFile{name: "large", body: "of the same content", stream: true}
	out := func(id string, f testFile) int {
		d := &syncDisk{disk: kernel{}}
		w.on(d)
		must(t, w.apply(id, StageOptions{}, f))
		w.on(kernel{})
		return d.out
	}
	first, streamed := out("first", f), out("again", f)
	f.stream = false
	if whole := out("whole", f); streamed != whole || first <= streamed {
		t.Errorf("%d files written out, %d for the known file as a stream, and %d in memory", first, streamed, whole)
	}
	w.check("at the end")
}

// TestNoOrderWithoutJournal: where one change may reach the disk before an older one, everything is synced.
func TestNoOrderWithoutJournal(t *testing.T) {
	for _, c := range []struct {
		kind    string
		mkfs    []string
		ordered bool
	}{
		{"ext4", nil, true},
		{"ext4", []string{"-O", "^has_journal"}, false},
		{"xfs", nil, true},
		{"btrfs", nil, false},
		{"tmpfs", nil, false},
	} {
		t.Run(fmt.Sprint(c.kind, c.mkfs), func(t *testing.T) {
			top := t.TempDir()
			if c.kind == "tmpfs" {
				must(t, unix.Mount("none", top, c.kind, 0, ""))
				t.Cleanup(func() { _ = unix.Unmount(top, unix.MNT_DETACH) })
			} else {
				f, err := testfs.New(c.kind, testfs.Options{Mkfs: c.mkfs})
				must(t, err)
				t.Cleanup(func() { _ = f.Close() })
				top = f.Dir
			}
			d, err := os.Open(top)
			must(t, err)
			ordered := orderedAt(int(d.Fd()))
			must(t, d.Close())
			if ordered != c.ordered {
				t.Errorf("ordered: %v", ordered)
			}
			w := newWorld(t, top)
			counter := &syncDisk{disk: kernel{}}
			w.on(counter)
			must(t, w.apply("layer", StageOptions{}, pool(5)...))
			if (counter.all == 0) != c.ordered || counter.dirs > 0 != c.ordered {
				t.Errorf("%d syncfs, %d files written out", counter.all, counter.out)
			}
		})
	}
}
