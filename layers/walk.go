package layers

import (
	"context"
	"fmt"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// An Entry is one entry of a layer or of a merged tree.
//
// What the trees say of a regular file or a symlink is its type, size, time and checksum. Its owner, permission bits, target and
// attributes are in its object: Load reads them.
type Entry struct {
	Path     string          // raw bytes, relative to the root, "." for the root; of a whiteout, the path that it removes
	Mode     uint32          // with S_IFMT; 0 for a whiteout
	UID, GID uint32          // on disk
	Size     int64           // bytes of a regular file or of a symlink's target
	MTime    store.Time      //
	Target   string          // of a symlink, raw bytes
	Major    uint32          // of a device
	Minor    uint32          // of a device
	Xattrs   []object.Xattr  // as the tar had them, empty values too, in canonical order, without the store label
	Checksum object.Checksum // of the file object or of the dirtree; zero for specials and whiteouts
	Index    int             // position in tree order
	First    int             // position of the first name of the same inode; Index if this is it
	Whiteout bool            // removes Path from the layers below
	Opaque   bool            // a directory that hides what the layers below have in it
	Implied  bool            // a directory that the tar did not list

	object bool // has a file object, and was not loaded yet
	linked bool // later entries are hardlinks to this one
}

// Load fills in what the entry's object in r says. It does nothing for an entry that has none.
func (e *Entry) Load(r *store.Repo) error {
	if !e.object {
		return nil
	}
	h, f, err := r.OpenFile(e.Checksum)
	if err != nil {
		return fmt.Errorf("read the object of %q: %w", e.Path, err)
	}
	size := int64(len(h.Target))
	if f != nil {
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("read the object of %q: %w", e.Path, err)
		}
		size = st.Size()
	}
	return e.fill(h, size)
}

// fill is Load with a header that is read already.
func (e *Entry) fill(h *object.FileHeader, size int64) error {
	if h.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT || size != e.Size {
		return fmt.Errorf("%q: type or size is not that of object %s", e.Path, e.Checksum)
	}
	e.UID, e.GID, e.Mode, e.Target = h.UID, h.GID, h.Mode, h.Target
	for _, x := range h.Xattrs {
		if x.Name != labelXattr {
			e.Xattrs = append(e.Xattrs, x)
		}
	}
	object.SortXattrs(e.Xattrs)
	e.object = false
	return nil
}

// IsDir reports whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.Mode&unix.S_IFMT == unix.S_IFDIR }

// Name is the last component of Path.
func (e *Entry) Name() string { return e.Path[strings.LastIndexByte(e.Path, '/')+1:] }

// WalkCommit calls fn for each entry of a layer commit in tree order; opaque marks are flags of their directories. It reads the commit and
// its trees, and no file. The Entry is valid until fn returns, what it refers to longer.
func WalkCommit(ctx context.Context, r *store.Repo, commit object.Checksum, fn func(*Entry) error) error {
	if err := walkCommit(ctx, r, commit, walkFuncs{entry: fn}); err != nil {
		return fmt.Errorf("walk layer commit %s: %w", commit, err)
	}
	return nil
}

// Walk calls fn for each entry of an applied layer, as WalkCommit does.
func (l *Layer) Walk(ctx context.Context, fn func(*Entry) error) error {
	if !l.Applied() {
		return fmt.Errorf("walk layer %s: %w", l.ID, errNotApplied)
	}
	if err := WalkCommit(ctx, l.catalog.repo, l.Commit, fn); err != nil {
		return fmt.Errorf("layer %s: %w", l.ID, err)
	}
	return nil
}
