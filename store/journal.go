package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A journal knows whether the filesystem has one that makes an order of all changes: of names, of inodes, and of where the content of
// files is once that was written out. To wait for one change is to wait for all that came before it then, whoever made them, and what a
// power cut leaves is a state that there was. A syncfs also writes what it need not: the files of containers and of other pulls.
type journal struct {
	once    sync.Once
	ordered bool
}

// ordered tells if waiting for one change is enough. What cannot be found out is a no.
func (r *root) ordered() bool {
	r.journal.once.Do(func() { r.journal.ordered = orderedAt(r.fd()) })
	return r.journal.ordered
}

func orderedAt(dir int) bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(dir, &fs) != nil || unix.Fstat(dir, &st) != nil {
		return false
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC: // which need not have a journal, and is ext2 or ext3 by the same number
		return ext4Journal(st.Dev)
	case unix.XFS_SUPER_MAGIC: // of a realtime device the log knows nothing
		flags, err := xfsFlags(dir)
		return err == nil && flags&(fsXflagRealtime|fsXflagRtInherit) == 0
	}
	return false
}

// ext4Journal tells if the filesystem of a device has a journal in itself, which jbd2 lists under the inode that it always has. Where the
// journal is on a device of its own, that can be ahead of what this one has in its cache.
func ext4Journal(dev uint64) bool {
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	return err == nil && unix.Access("/proc/fs/jbd2/"+filepath.Base(device)+"-8", unix.F_OK) == nil
}

// WriteOut has a file's content written to the disk, and returns when it is there. With SyncNames afterwards it is durable.
func WriteOut(f *os.File) error {
	if err := (kernel{}).writeOut(int(f.Fd())); err != nil {
		return &os.PathError{Op: "write out", Path: f.Name(), Err: err}
	}
	return nil
}

// SyncNames makes durable what was done before, but the content of files other than those of WriteOut, and those that were
// durable already.
func (n *Names) SyncNames() error {
	r := n.root
	switch {
	case r.readOnly:
		return nil
	case r.ordered():
		return r.syncNames()
	}
	return r.syncfs(r.fd())
}

// syncNames makes a change and waits for it.
func (r *root) syncNames() error {
	fd, err := openDir(r.fd(), stagingDir)
	if err != nil {
		return &os.PathError{Op: "open", Path: stagingDir, Err: err}
	}
	defer unix.Close(fd)
	if err := r.disk.stamp(r.fd(), stagingDir, unix.Timespec{Nsec: unix.UTIME_NOW}); err != nil {
		return placeError("change the time of", stagingDir, err)
	}
	if err := r.disk.syncDir(fd); err != nil {
		return &os.PathError{Op: "sync", Path: stagingDir, Err: err}
	}
	return nil
}

// The ioctl FS_IOC_FSGETXATTR, and the flags that say that content goes, or will go, to xfs' realtime device.
const (
	fsGetXattr       = 0x801c581f
	fsXflagRealtime  = 0x1
	fsXflagRtInherit = 0x100
)

func xfsFlags(fd int) (uint32, error) {
	var x struct {
		flags uint32
		_     [24]byte
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsGetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return 0, errno
	}
	return x.flags, nil
}
