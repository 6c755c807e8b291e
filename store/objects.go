package store

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Objects is the read side of a repository.
type Objects struct{ root *root }

// maxMetadata bounds what is read into memory for one metadata object, in bytes. libostree's own bound is 128 MiB.
const maxMetadata = 1 << 30

// Has tells if an object is there. It does not look at its content.
func (o *Objects) Has(n object.Name) (bool, error) {
	var st unix.Stat_t
	switch err := lstat(int(o.root.objects.Fd()), n.LoosePath(), &st); err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, fmt.Errorf("look for %s: %w", n, err)
	}
}

// ReadCommit reads and verifies a commit.
func (o *Objects) ReadCommit(c object.Checksum) (*object.Commit, error) {
	m := new(object.Commit)
	return m, o.root.readObject(object.Name{Checksum: c, Type: object.TypeCommit}, m)
}

// ReadDirTree reads and verifies a dirtree.
func (o *Objects) ReadDirTree(c object.Checksum) (*object.DirTree, error) {
	m := new(object.DirTree)
	return m, o.root.readObject(object.Name{Checksum: c, Type: object.TypeDirTree}, m)
}

// ReadDirMeta reads and verifies a dirmeta.
func (o *Objects) ReadDirMeta(c object.Checksum) (*object.DirMeta, error) {
	m := new(object.DirMeta)
	return m, o.root.readObject(object.Name{Checksum: c, Type: object.TypeDirMeta}, m)
}

// OpenFile opens a file object and returns its header, the store label included. The file of a symlink is nil.
// The content is not verified.
func (o *Objects) OpenFile(c object.Checksum) (*object.FileHeader, *os.File, error) {
	n := object.Name{Checksum: c, Type: object.TypeFile}
	dir, path := int(o.root.objects.Fd()), n.LoosePath()
	var st unix.Stat_t
	fd, err := openInode(dir, path, &st)
	if err == unix.ENOENT {
		return nil, nil, &MissingError{n}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", n, err)
	}
	h, err := headerOf(fd, dir, path, &st)
	if fd < 0 {
		return h, nil, err
	}
	f := os.NewFile(uintptr(fd), o.root.path+"/objects/"+path)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open %s: %w", n, err)
	}
	return h, f, nil
}

// A decoder is what metadata is read into.
type decoder interface{ UnmarshalBinary([]byte) error }

func (r *root) readObject(n object.Name, into decoder) error {
	return r.readMetadata(int(r.objects.Fd()), n.LoosePath(), n, into)
}

// readMetadata reads a metadata object from the file path in dir, compares its checksum and decodes it.
func (r *root) readMetadata(dir int, path string, n object.Name, into decoder) error {
	b, err := readAt(dir, path)
	if err == unix.ENOENT {
		return &MissingError{n}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", n, err)
	}
	if got := object.Sum(b); got != n.Checksum {
		return &CorruptError{n, "its bytes hash to " + got.String()}
	}
	if err := into.UnmarshalBinary(b); err != nil {
		return &CorruptError{n, err.Error()}
	}
	return nil
}

// readAt reads a whole regular file. There are many and they are small: no os.File.
func readAt(dir int, name string) ([]byte, error) {
	fd, err := openRead(dir, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxMetadata {
		return nil, fmt.Errorf("not a metadata file (mode %o, %d bytes)", st.Mode, st.Size)
	}
	b := make([]byte, st.Size)
	for done := 0; done < len(b); {
		n, err := retry(func() (int, error) { return unix.Read(fd, b[done:]) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		done += n
	}
	return b, nil
}
