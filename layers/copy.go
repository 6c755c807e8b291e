package layers

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// copyInode makes name in dir what it is in from: a file, a symlink or a special, with owner, mode, time and all attributes, and another label
// if one is given. The content of a file is reflinked where the filesystem can.
func copyInode(dir int, name string, from int, st *unix.Stat_t, label string) error {
	m := &meta{uid: st.Uid, gid: st.Gid, mode: st.Mode}
	xattrs, err := xattrsAt(from, name)
	if err != nil {
		return err
	}
	xattrs = store.WithoutShadows(xattrs)
	if label != "" {
		xattrs = slices.DeleteFunc(xattrs, func(x object.Xattr) bool { return x.Name == labelXattr })
	}
	t := store.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f, err := openAt(from, name)
		if err != nil {
			return err
		}
		defer f.Close()
		return copyFile(dir, name, f, st.Size, m, xattrs, label, t)
	case unix.S_IFLNK:
		target := make([]byte, maxTarget+1)
		n, err := unix.Readlinkat(from, name, target)
		if err != nil {
			return &os.PathError{Op: "readlink", Path: name, Err: err}
		}
		if err := unix.Symlinkat(string(target[:n]), dir, name); err != nil {
			return &os.PathError{Op: "symlink", Path: name, Err: err}
		}
	default:
		if err := unix.Mknodat(dir, name, st.Mode&unix.S_IFMT, int(st.Rdev)); err != nil {
			return &os.PathError{Op: "mknod", Path: name, Err: err}
		}
	}
	return dress(dir, name, m, xattrs, label, t)
}

// xattrsAt reads all attributes of a name, not followed, the label included.
func xattrsAt(dir int, name string) ([]object.Xattr, error) {
	path := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
	b := make([]byte, 64<<10) // what the kernel allows at most
	n, err := unix.Llistxattr(path, b)
	if err != nil || n == 0 {
		return nil, err
	}
	var list []object.Xattr
	for _, attr := range strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, attr, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr", Path: name, Err: err}
		}
		list = append(list, object.Xattr{Name: attr, Value: value[:n:n]})
	}
	return list, nil
}
