package store

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Attribute names with a meaning for the store.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	labelName  = "security.selinux"
)

// procPath is a path that leads to name in an open directory for calls that take no descriptor. Only the directory part
// goes through /proc; name itself is not followed by the l* calls.
func procPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// attributes reads all extended attributes that are not empty, in canonical order: what bare mode hashes.
func attributes(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]object.Xattr, error) {
	names, err := grow(256, list)
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var out []object.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		value, err := grow(256, func(b []byte) (int, error) { return get(name, b) })
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %q: %w", name, err)
		}
		if len(value) > 0 {
			out = append(out, object.Xattr{Name: name, Value: value})
		}
	}
	object.SortXattrs(out)
	return out, nil
}

// grow calls f with buffers that grow until the answer fits.
func grow(size int, f func([]byte) (int, error)) ([]byte, error) {
	for {
		b := make([]byte, size)
		n, err := f(b)
		if err == nil {
			return b[:n], nil
		}
		if err != unix.ERANGE || size > 1<<20 {
			return nil, err
		}
		size *= 8
	}
}

// fileAttributes reads the attributes of an open file.
func fileAttributes(fd int) ([]object.Xattr, error) {
	return attributes(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// linkAttributes reads the attributes of a symlink.
func linkAttributes(dir int, name string) ([]object.Xattr, error) {
	path := procPath(dir, name)
	return attributes(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// readTarget reads a symlink.
func readTarget(dir int, name string) (string, error) {
	b, err := grow(256, func(b []byte) (int, error) {
		n, err := unix.Readlinkat(dir, name, b)
		if err == nil && n == len(b) {
			return 0, unix.ERANGE
		}
		return n, err
	})
	return string(b), err
}

// headerOf makes the header that bare mode recomputes from an inode. fd is the open file, or -1 for a symlink, which is
// then name in dir.
func headerOf(fd, dir int, name string, st *unix.Stat_t) (*object.FileHeader, error) {
	h := &object.FileHeader{UID: st.Uid, GID: st.Gid, Mode: st.Mode}
	var err error
	if fd >= 0 {
		h.Xattrs, err = fileAttributes(fd)
		return h, err
	}
	if h.Target, err = readTarget(dir, name); err != nil {
		return nil, err
	}
	h.Xattrs, err = linkAttributes(dir, name)
	return h, err
}

// openInode opens name in dir for reading and stats it. For a symlink the descriptor is -1; anything else but a regular
// file is an error.
func openInode(dir int, name string, st *unix.Stat_t) (int, error) {
	fd, err := openRead(dir, name)
	if err == unix.ELOOP {
		if err := lstat(dir, name, st); err != nil {
			return -1, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return -1, unix.ELOOP
		}
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, fmt.Errorf("not a regular file or symlink (mode %o)", st.Mode)
	}
	return fd, nil
}
