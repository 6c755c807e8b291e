package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// create makes a new inode for the file and returns its number. With clone there is an object whose blocks may be shared.
// A file that is open is already written under its name and only lacks its attributes.
func (s *Stage) create(dir int, name string, it *item, xattrs []object.Xattr, clone bool) (uint64, error) {
	if it.header.Mode&unix.S_IFMT == unix.S_IFLNK {
		return s.createLink(dir, name, it, xattrs)
	}
	if it.open >= 0 {
		if s.clones(it) && (clone || s.remembers(it)) {
			if ino, err := s.replaceByClone(dir, name, it, xattrs, clone); err == nil {
				return ino, nil
			}
		} else if s.clones(it) {
			s.remember(it.open, it)
		}
		ino, err := finish(it.open, it, xattrs)
		return ino, wrapPlace("write", name, err)
	}
	fd, err := s.r.disk.create(dir, name, it.header.Mode&0o777)
	if err != nil {
		return 0, placeError("create", name, err)
	}
	err = s.fill(fd, it, clone)
	var ino uint64
	if err == nil {
		s.wrote(it.size)
		ino, err = finish(fd, it, xattrs)
	}
	if err = errors.Join(err, s.let(fd)); err != nil {
		s.r.disk.remove(dir, name)
		return 0, wrapPlace("write", name, err)
	}
	return ino, nil
}

func wrapPlace(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return placeError(verb, name, err)
}

// replaceByClone puts a clone of the known object in the place of what was written before the content was known.
func (s *Stage) replaceByClone(dir int, name string, it *item, xattrs []object.Xattr, clone bool) (uint64, error) {
	twin := *it
	twin.open, twin.source, twin.body = -1, -1, nil
	next := s.spareName()
	ino, err := s.create(int(s.own.Fd()), next, &twin, xattrs, clone)
	if err != nil {
		return 0, err
	}
	return ino, s.r.disk.rename(int(s.own.Fd()), next, dir, name)
}

// errNoContent says that a file can only be made as a clone, and could not be cloned.
var errNoContent = errors.New("nothing to clone")

// fill gives a new file its content.
func (s *Stage) fill(fd int, it *item, clone bool) error {
	if it.size == 0 {
		return nil
	}
	if s.clones(it) {
		if s.cloneInto(fd, it, clone) {
			return nil
		}
		defer s.remember(fd, it)
	}
	switch {
	case it.body != nil:
		return writeSparse(fd, it.body)
	case it.source >= 0:
		return copySparse(fd, it.source, it.size)
	}
	return errNoContent
}

// finish gives an open file owner, mode, attributes and time. The owner comes first, since chown clears set-id bits and
// capabilities; an access control list comes after the mode, which it overrides.
func finish(fd int, it *item, xattrs []object.Xattr) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	h := &it.header
	mode := st.Mode
	if st.Uid != h.UID || st.Gid != h.GID {
		if err := unix.Fchown(fd, int(h.UID), int(h.GID)); err != nil {
			return 0, fmt.Errorf("chown to %d:%d: %w", h.UID, h.GID, err)
		}
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if mode != h.Mode {
		if err := unix.Fchmod(fd, h.Mode&0o7777); err != nil {
			return 0, fmt.Errorf("chmod to %o: %w", h.Mode&0o7777, err)
		}
	}
	for _, x := range xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return 0, &AttributeError{x.Name, err}
		}
	}
	if err := setTime(fd, it.time); err != nil {
		return 0, fmt.Errorf("set time: %w", err)
	}
	return st.Ino, nil
}

// createLink makes a symlink.
func (s *Stage) createLink(dir int, name string, it *item, xattrs []object.Xattr) (ino uint64, err error) {
	if err := s.r.disk.symlink(it.header.Target, dir, name); err != nil {
		return 0, placeError("symlink", name, err)
	}
	if ino, err = finishLink(dir, name, it, xattrs); err != nil {
		s.r.disk.remove(dir, name)
		return 0, placeError("symlink", name, err)
	}
	return ino, nil
}

func finishLink(dir int, name string, it *item, xattrs []object.Xattr) (uint64, error) {
	var st unix.Stat_t
	if err := lstat(dir, name, &st); err != nil {
		return 0, err
	}
	if st.Uid != it.header.UID || st.Gid != it.header.GID {
		err := unix.Fchownat(dir, name, int(it.header.UID), int(it.header.GID), unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return 0, err
		}
	}
	for _, x := range xattrs {
		if err := unix.Lsetxattr(procPath(dir, name), x.Name, x.Value, 0); err != nil {
			return 0, &AttributeError{x.Name, err}
		}
	}
	return st.Ino, unix.UtimesNanoAt(dir, name, it.time.spec(), unix.AT_SYMLINK_NOFOLLOW)
}

// Zero runs that are at least this long become holes, on block boundaries.
const (
	holeMin   = 32 << 10
	holeBlock = 4 << 10
)

var zeroBlock [holeBlock]byte

// nextHole returns the bounds of the first hole to make in b from offset on, or two times len(b).
func nextHole(b []byte, from int) (start, end int) {
	start = -1
	i := from
	for ; i+holeBlock <= len(b); i += holeBlock {
		if string(b[i:i+holeBlock]) == string(zeroBlock[:]) {
			if start < 0 {
				start = i
			}
			continue
		}
		if start >= 0 && i-start >= holeMin {
			return start, i
		}
		start = -1
	}
	if start >= 0 && i-start >= holeMin {
		return start, i
	}
	return len(b), len(b)
}

// writeSparse writes a new file's whole content.
func writeSparse(fd int, b []byte) error {
	if len(b) < holeMin {
		return writeAll(fd, b, 0)
	}
	return writeHoles(fd, b, 0, int64(len(b)))
}

// growTo gives a file its length if it has a hole.
func growTo(fd int, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size == size {
		return err
	}
	return unix.Ftruncate(fd, size)
}

// writeHoles writes what is no hole in b at the offset off, which is a multiple of holeBlock, of a file of the size. The file
// has its length before anything behind a hole is written: xfs would fill a part of the hole in advance, as it does behind
// the end of files that grow.
func writeHoles(fd int, b []byte, off, size int64) error {
	for at := 0; at < len(b); {
		start, end := nextHole(b, at)
		if start < end {
			if err := growTo(fd, size); err != nil {
				return err
			}
		}
		if err := writeAll(fd, b[at:start], off+int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func writeAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Pwrite(fd, b, off) })
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// copySparse copies size bytes from another file.
func copySparse(fd, from int, size int64) error {
	b := chunks.Get().(*[]byte)
	defer chunks.Put(b)
	for off := int64(0); off < size; {
		n, err := retry(func() (int, error) { return unix.Pread(from, *b, off) })
		if err != nil {
			return err
		}
		if n == 0 || off+int64(n) > size {
			return io.ErrUnexpectedEOF
		}
		if n%holeBlock != 0 && off+int64(n) < size {
			n -= n % holeBlock // keep to the grid of blocks
			if n == 0 {
				return os.ErrInvalid
			}
		}
		if err := writeHoles(fd, (*b)[:n], off, size); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
