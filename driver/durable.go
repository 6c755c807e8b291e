package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dirSyncMagics are the filesystems on which FS_DIRSYNC_FL does what it says; others take the flag and pay it no attention.
var dirSyncMagics = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, // ext2 and ext3 too
	unix.F2FS_SUPER_MAGIC: true,
}

// syncDirectories makes the directory in which containers/storage keeps its records of images, and has the filesystem write every
// change of a name in it at once. containers/storage renames its newest record into place after its last call into a driver and does
// not sync it: without this, an image that was acknowledged just before a power cut is lost. It reports whether that now holds;
// where it cannot be done, as on a filesystem without the flag, status says so.
//
// The directories of layers and containers need no flag: a pull, a commit and a tag end with the record of the image, and these
// filesystems write changes of names in the order in which they were made, so that what is written with it has the records of its
// layers. Every container that is made or removed would pay for a flag on them, with a wait for the disk for each record.
func syncDirectories(root string) bool {
	dir := filepath.Join(root, Name+"-images")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false
	}
	held, err := setDirSync(dir)
	return held && err == nil
}

// setDirSync sets FS_DIRSYNC_FL on a directory, and reports whether the filesystem has it and acts on it.
func setDirSync(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if !dirSyncMagics[int64(st.Type)] {
		return false, nil
	}
	const dirSync = 0x00010000 // FS_DIRSYNC_FL of linux/fs.h
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return false, nil
	}
	if flags&dirSync != 0 {
		return true, nil
	}
	// A user namespace, or a directory of another user, may refuse: then it is as on a filesystem without the flag.
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|dirSync) == nil, nil
}

// syncFilesystem writes all of the filesystem that path is on.
func syncFilesystem(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the filesystem of %s: %w", path, err)
	}
	return nil
}
