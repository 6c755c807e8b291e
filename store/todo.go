package store

import (
	"context"
	"os"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Freed is what a removal gave back.
type Freed struct {
	Objects int64 // how many objects were deleted
	Lanes   int64 // how many lanes besides
	Bytes   int64 // blocks of inodes that had no other name
}

// Release deletes the objects that the given commits reach and that no ref reaches any more.
func (r *Repo) Release(ctx context.Context, commits ...object.Checksum) (Freed, error) {
	panic("not written yet")
}

// Prune deletes every object that no ref reaches, lanes that no tree uses, and what dead processes left behind. With
// dryRun it only counts.
func (r *Repo) Prune(ctx context.Context, dryRun bool) (Freed, error) { panic("not written yet") }

// DropLane unlinks the lane file of (c, t, n) if its inode is ino and no tree uses it any more.
func (r *Repo) DropLane(c object.Checksum, t Time, n uint32, ino uint64) error {
	panic("not written yet")
}

// A Leftover is something that a crash or a killed process left and Recover finished or removed.
type Leftover struct {
	Path string // relative to the repository
	Kind string // "stage", "trash" or "unsynced"
}

// Recover removes stages and finishes removals of earlier boots and of dead processes, and verifies what was published
// without a sync before a reboot. What live processes use is left alone.
func (r *Repo) Recover(ctx context.Context) ([]Leftover, error) { panic("not written yet") }

// A Trash is a directory on its way out.
type Trash struct{}

// MoveToTrash starts a removal that a crash cannot lose: it notes it in a journal, deletes the refs that are given, and
// moves the directory name of oldParent aside, all in O(1). What is left to do is in Remove; if the process dies
// before, Recover does it.
func (r *Repo) MoveToTrash(oldParent *os.File, name string, refs ...string) (*Trash, error) {
	panic("not written yet")
}

// Path returns where the directory is now.
func (t *Trash) Path() string { panic("not written yet") }

// Remove deletes the directory's content, drops the lanes that its inode list names and nothing else uses, releases the
// commits that the refs named, and forgets the removal.
func (t *Trash) Remove() error { panic("not written yet") }

// FsckOptions bound a check.
type FsckOptions struct {
	Quick   bool // do not hash the bodies of files: sizes, metadata, names and reachability only
	Workers int  // how many to hash at once; 0 means all cores
}

// A Finding is one thing that is wrong.
type Finding struct {
	Kind   string      // "missing", "corrupt", "misplaced", "ref" or "lane"
	Object object.Name // the object that is meant, if any
	Path   string      // relative to the repository
	Refs   []string    // refs that reach it
	Reason string
}

// Fsck reads everything and calls report, from one goroutine at a time, for each thing that is wrong. It changes nothing.
func (r *Repo) Fsck(ctx context.Context, o FsckOptions, report func(Finding)) error {
	panic("not written yet")
}
