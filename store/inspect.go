package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Inspect says why the file name in the directory dir is not the file object c, "" if it is. It reads the file and its attributes.
// With unescape, that turns the attributes of the inode into those of the object first.
func (o *Objects) Inspect(dir int, name string, c object.Checksum, unescape func([]object.Xattr) []object.Xattr) (reason string, err error) {
	var st unix.Stat_t
	fd, err := openInode(dir, name, &st)
	if err != nil {
		return "", placeError("open", name, err)
	}
	var f *os.File
	if fd >= 0 {
		f = os.NewFile(uintptr(fd), name)
		defer f.Close()
	}
	h, err := headerOf(fd, dir, name, &st)
	if err != nil {
		return "", placeError("read", name, err)
	}
	if unescape != nil {
		h.Xattrs = unescape(h.Xattrs)
		object.SortXattrs(h.Xattrs)
	}
	sum, err := h.NewHash()
	if err != nil {
		return "its header cannot be encoded: " + err.Error(), nil
	}
	if f != nil {
		if _, err := io.Copy(sum, f); err != nil {
			return "it cannot be read: " + err.Error(), nil
		}
	}
	if got := object.Checksum(sum.Sum(nil)); got != c {
		return "it hashes to " + got.String() + ", not to " + c.String(), nil
	}
	return "", nil
}

// ObjectInode returns the inode number of a file object, 0 if there is none.
func (o *Objects) ObjectInode(c object.Checksum) uint64 {
	var st unix.Stat_t
	if lstat(int(o.root.objects.Fd()), object.Name{Checksum: c, Type: object.TypeFile}.LoosePath(), &st) != nil {
		return 0
	}
	return st.Ino
}

// InspectInodes says why a file is not the inode list of the directory tree, "" if it is. A list that is missing is none: it is made
// again when it is wanted. It changes nothing.
func InspectInodes(path, tree string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(tree, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: tree, Err: err}
	}
	l, err := mapInodes(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case errors.Is(err, errStale):
		return "it is damaged", nil
	case err != nil:
		return "", err
	}
	defer l.Close()
	for i := 1; i < l.count; i++ {
		if l.ino(i-1) >= l.ino(i) {
			return fmt.Sprintf("entry %d is out of order", i), nil
		}
	}
	return "", nil
}
