package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Unmount removes the mount at target, detaching it if it is busy. Where nothing is mounted, or nothing is, there is
// nothing to do.
func Unmount(target string) error {
	dir, name, err := shorten(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	defer closeDir(dir)
	path := name
	if dir >= 0 {
		path = filepath.Join(linkName(dir), name)
	}
	err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	switch {
	case err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return nil
	case errors.Is(err, unix.EINVAL):
		// Not a mount point, or one that came from a mount namespace above this one and is locked.
		if mounted, mountedErr := Mounted(target); mountedErr == nil && !mounted {
			return nil
		}
	}
	return &os.PathError{Op: "unmount", Path: target, Err: err}
}

// Mounted reports whether an overlay mount is at target. Where target does not exist, none is.
func Mounted(target string) (bool, error) {
	dir, name, err := shorten(target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a mount: %w", err)
	}
	defer closeDir(dir)
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "look for a mount at", Path: target, Err: err}
	}
	defer unix.Close(fd)
	var filesystem unix.Statfs_t
	if err := unix.Fstatfs(fd, &filesystem); err != nil {
		return false, &os.PathError{Op: "look for a mount at", Path: target, Err: err}
	}
	if filesystem.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return false, nil
	}
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st)
	if err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	// Linux before 5.8 does not say so. Here target lies on an overlay, be it its own or one around it.
	return mountinfo.Mounted(target)
}
