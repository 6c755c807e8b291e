package store

import (
	"context"
	"io"
	"os"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Time is a file's modification time.
type Time struct {
	Sec  int64  // since 1970
	Nsec uint32 // below 1e9
}

// StageOptions say how files are placed.
type StageOptions struct {
	SharedTimes bool      // files that differ only in their time may share an inode
	NoSync      bool      // publish without waiting for the disk
	Ancestors   []*Inodes // inodes that must not be used: those of the trees below this one
	Sources     []*Repo   // other repositories on this filesystem whose objects may be linked
}

// A Stage is a directory in which one tree is made. PutFile and its kin may be called from several goroutines.
type Stage struct{}

// NewStage makes an empty stage. Nothing in it is visible to others before Publish.
func (r *Repo) NewStage(o StageOptions) (*Stage, error) { panic("not written yet") }

// Dir returns the stage's directory, where the caller makes its tree. It is open as long as the stage is.
func (s *Stage) Dir() *os.File { panic("not written yet") }

// Path returns the path of Dir.
func (s *Stage) Path() string { panic("not written yet") }

// Name returns the stage's own name, unique in the repository.
func (s *Stage) Name() string { panic("not written yet") }

// Close removes what is left of the stage, and the ref staged/<name> if it is still there.
func (s *Stage) Close() error { panic("not written yet") }

// A File is what there is to know about a regular file or a symlink besides its content.
type File struct {
	Header object.FileHeader // without label: the store adds it
	MTime  Time
	// Private asks for an inode of its own, which is never linked to an object or another tree.
	Private bool
	// Inode, if not nil, are the attributes that the tree's inode carries instead of Header.Xattrs. Implies Private.
	Inode []object.Xattr
}

// A Placement says how a file came into the tree.
type Placement uint8

// How a file came into the tree.
const (
	Linked  Placement = iota + 1 // an inode that the repository had
	Created                      // a new inode, which Publish must link into the repository
	Single                       // an inode of its own
	Loose                        // not in the tree at all: an object only
)

// Placed is the result of placing one file. The caller hands it back to Publish.
type Placed struct {
	Checksum object.Checksum
	MTime    Time // as the filesystem stores it
	Ino      uint64
	Lane     uint32
	Size     int64
	Mode     Placement
	Header   *object.FileHeader // only when the filesystem changed it (access control lists); without label
}

// PutFile places a small file or a symlink, whose body is in memory, as name in the directory dir. A nil error means
// that the tree has the file and the stage or the repository the object, not that this call wrote anything. The error
// matches fs.ErrExist if the name is taken.
func (s *Stage) PutFile(dir int, name string, f File, body []byte) (Placed, error) {
	panic("not written yet")
}

// PutStream places a large regular file, which is written while it is hashed. A body that is not size bytes long is an
// error.
func (s *Stage) PutStream(dir int, name string, f File, size int64, body io.Reader) (Placed, error) {
	panic("not written yet")
}

// PutObject places a file whose object is in this repository or in one of Sources. f.Header must be the object's.
func (s *Stage) PutObject(dir int, name string, f File, c object.Checksum) (Placed, error) {
	panic("not written yet")
}

// PutLoose stages a file object without a place in the tree (a whiteout, say).
func (s *Stage) PutLoose(f File, body []byte) (Placed, error) { panic("not written yet") }

// Forget says that the file was removed from the tree again.
func (s *Stage) Forget(p Placed) { panic("not written yet") }

// Settle returns mode and attributes as the filesystem will give them back: access control lists change permission bits
// and may vanish into them. Mode has S_IFMT; only regular files and directories change.
func (s *Stage) Settle(mode uint32, xattrs []object.Xattr) (uint32, []object.Xattr, error) {
	panic("not written yet")
}

// PutDirMeta stages a dirmeta; the store adds its label.
func (s *Stage) PutDirMeta(m *object.DirMeta) (object.Checksum, error) { panic("not written yet") }

// PutDirTree stages a dirtree. All that it names must have been put before it.
func (s *Stage) PutDirTree(t *object.DirTree) (object.Checksum, error) { panic("not written yet") }

// PutCommit stages a commit. All that it names must have been put before it.
func (s *Stage) PutCommit(c *object.Commit) (object.Checksum, error) { panic("not written yet") }

// Publish makes the commit part of the repository under the given ref. files must call link for every file that was
// placed and is still in the tree; dir and name are where it is now.
func (s *Stage) Publish(ctx context.Context, ref string, commit object.Checksum,
	files func(link func(dir int, name string, p Placed) error) error) error {
	panic("not written yet")
}

// WriteInodes writes the list of the inodes that tree shares with the repository, for later layers to avoid. It is
// called after Publish.
func (s *Stage) WriteInodes(path string, tree *os.File) error { panic("not written yet") }

// LaneUnknown is the lane of an inode whose list was lost and made again from the tree.
const LaneUnknown = ^uint32(0)

// Inodes is the list of the inodes that one tree shares with the repository.
type Inodes struct{}

// OpenInodes opens a list. If it is missing, damaged, or belongs to another directory than tree, as after a restore from
// a backup, it is made again by walking tree; lanes are then unknown.
func OpenInodes(path, tree string) (*Inodes, error) { panic("not written yet") }

// Contains tells if the tree uses the inode.
func (l *Inodes) Contains(ino uint64) bool { panic("not written yet") }

// Lane returns the lane of an inode that the tree uses.
func (l *Inodes) Lane(ino uint64) (uint32, bool) { panic("not written yet") }

// Len returns how many inodes are listed.
func (l *Inodes) Len() int { panic("not written yet") }

// Close releases the list.
func (l *Inodes) Close() error { panic("not written yet") }
