package store

import (
	"context"
	"os"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Options are what is fixed when a repository is made.
type Options struct {
	Label string // store label, without the final NUL; "" means none
}

// A Repo is an open repository.
type Repo struct {
	*Objects
	*Names
}

// Features are what the repository's filesystem can do.
type Features struct {
	Reflink bool   // FICLONE works
	LinkMax uint64 // most links of one inode; 0 if not known
}

// Init makes a repository at path, or opens the one that is there. A label that differs from the repository's is an
// error. It is safe to call it in several processes at once, and finishes what a crash left of an earlier call.
func Init(path string, o Options) (*Repo, error) { panic("not written yet") }

// Open opens an existing repository; where it may not be changed, for reading only.
func Open(path string) (*Repo, error) { panic("not written yet") }

// Close releases the repository. Stages and trash of it must be closed before.
func (r *Repo) Close() error { panic("not written yet") }

// Path returns the path that the repository was opened with.
func (r *Repo) Path() string { panic("not written yet") }

// Label returns the store label, "" if there is none.
func (r *Repo) Label() string { panic("not written yet") }

// ReadOnly tells if the repository was opened for reading only.
func (r *Repo) ReadOnly() bool { panic("not written yet") }

// Features probes the filesystem at the first call.
func (r *Repo) Features() (Features, error) { panic("not written yet") }

// Sync makes durable what was done before: one syncfs.
func (r *Repo) Sync() error { panic("not written yet") }

// Objects is the read side of a repository.
type Objects struct{}

// Has tells if an object is there. It does not look at its content.
func (o *Objects) Has(n object.Name) (bool, error) { panic("not written yet") }

// ReadCommit reads and verifies a commit.
func (o *Objects) ReadCommit(c object.Checksum) (*object.Commit, error) { panic("not written yet") }

// ReadDirTree reads and verifies a dirtree.
func (o *Objects) ReadDirTree(c object.Checksum) (*object.DirTree, error) { panic("not written yet") }

// ReadDirMeta reads and verifies a dirmeta.
func (o *Objects) ReadDirMeta(c object.Checksum) (*object.DirMeta, error) { panic("not written yet") }

// OpenFile opens a file object and returns its header, the store label included. The file of a symlink is nil.
// The content is not verified.
func (o *Objects) OpenFile(c object.Checksum) (*object.FileHeader, *os.File, error) {
	panic("not written yet")
}

// Names are a repository's refs. Names are relative to refs/heads.
type Names struct{}

// Ref returns the commit that a ref names; the error matches fs.ErrNotExist if there is no such ref.
func (n *Names) Ref(name string) (object.Checksum, error) { panic("not written yet") }

// Refs returns all refs below prefix ("layer" gives "layer/x"; "" gives all) with their full names.
func (n *Names) Refs(prefix string) (map[string]object.Checksum, error) { panic("not written yet") }

// SetRef makes a ref name a commit that is in the repository. The ref's content is durable before its name changes.
func (n *Names) SetRef(name string, c object.Checksum) error { panic("not written yet") }

// MoveRef renames a ref, replacing what had the new name; no moment in between has neither.
func (n *Names) MoveRef(from, to string) error { panic("not written yet") }

// DeleteRef removes a ref. It is no error if there is none.
func (n *Names) DeleteRef(name string) error { panic("not written yet") }

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
