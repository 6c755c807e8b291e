package layers

import (
	"fmt"
	"strconv"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// dress gives an entry that is no regular file its owner, mode, attributes and time. Owner before mode, since chown clears set-id bits; time last.
func dress(dir int, name string, m *meta, xattrs []object.Xattr, label string, t store.Time) error {
	if err := unix.Fchownat(dir, name, int(m.uid), int(m.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set the owner %d:%d: %w", m.uid, m.gid, err)
	}
	if m.mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dir, name, m.mode&0o7777, 0); err != nil {
			return fmt.Errorf("set the mode: %w", err)
		}
	}
	for _, x := range xattrs {
		if err := setXattrAt(dir, name, x.Name, x.Value); err != nil {
			return err
		}
	}
	if err := setLabel(dir, name, label); err != nil {
		return err
	}
	if err := setTime(dir, name, t); err != nil {
		return fmt.Errorf("set the time: %w", err)
	}
	return nil
}

// setTime sets the modification time of a name, not followed.
func setTime(dir int, name string, t store.Time) error {
	return unix.UtimesNanoAt(dir, name, timespecs(t), unix.AT_SYMLINK_NOFOLLOW)
}

// timespecs leaves the access time alone: nothing of ours reads it, and mounts of layers do not update it.
func timespecs(t store.Time) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Sec, Nsec: int64(t.Nsec)}}
}

// setLabel sets the store label, if there is one.
func setLabel(dir int, name, label string) error {
	if label == "" {
		return nil
	}
	return setXattrAt(dir, name, labelXattr, append([]byte(label), 0))
}

// makeWhiteout makes what hides a name from the layers below.
func makeWhiteout(dir int, name, label string) error {
	if err := unix.Mknodat(dir, name, unix.S_IFCHR, 0); err != nil {
		return err
	}
	return setLabel(dir, name, label)
}

// setXattrAt sets an attribute of a name, not followed. Only the last component is a name that an image chose.
func setXattrAt(dir int, name, attr string, value []byte) error {
	path := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
	if err := unix.Lsetxattr(path, attr, value, 0); err != nil {
		return fmt.Errorf("set attribute %q: %w", attr, err)
	}
	return nil
}

// setFdXattr sets an attribute of an open file or directory.
func setFdXattr(fd int, attr string, value []byte) error {
	if err := unix.Fsetxattr(fd, attr, value, 0); err != nil {
		return fmt.Errorf("set attribute %q: %w", attr, err)
	}
	return nil
}

// dressOpenDir gives an open directory its metadata, as far as it differs: a change of what is the same goes through the filesystem's journal
// too. Its content must be complete: any change of it changes the time.
func dressOpenDir(fd int, m *meta, xattrs []object.Xattr, label string, t store.Time) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at the directory: %w", err)
	}
	owned := st.Uid == m.uid && st.Gid == m.gid
	if !owned {
		if err := unix.Fchown(fd, int(m.uid), int(m.gid)); err != nil {
			return fmt.Errorf("set the owner %d:%d: %w", m.uid, m.gid, err)
		}
	}
	if !owned || st.Mode != m.mode {
		if err := unix.Fchmod(fd, m.mode&0o7777); err != nil {
			return fmt.Errorf("set the mode: %w", err)
		}
	}
	for _, x := range xattrs {
		if err := setFdXattr(fd, x.Name, x.Value); err != nil {
			return err
		}
	}
	if label != "" {
		if err := setFdXattr(fd, labelXattr, append([]byte(label), 0)); err != nil {
			return err
		}
	}
	if err := setTime(fd, ".", t); err != nil {
		return fmt.Errorf("set the time: %w", err)
	}
	return nil
}
