package store

import "golang.org/x/sys/unix"

// A disk makes the few calls that change a repository's directories, each of them atomic. Names are relative to
// directory descriptors and are never followed if they are symlinks. Errors are bare errnos. Tests trace it and cut it
// short.
type disk interface {
	create(dir int, name string, perm uint32) (fd int, err error) // a new file, open for reading and writing
	mkdir(dir int, name string) error                             // 0700
	symlink(target string, dir int, name string) error
	link(fromDir int, from string, toDir int, to string) error // fails if to exists; with from empty, fromDir is the file
	rename(fromDir int, from string, toDir int, to string) error
	remove(dir int, name string) error
	removeDir(dir int, name string) error
	stamp(dir int, name string, mtime unix.Timespec) error // sets the modification time
	sync(fd int) error                                     // fdatasync of one file
	writeOut(fd int) error                                 // the content of one file, not what leads to it
	syncDir(fd int) error                                  // fsync of a directory
	syncfs(fd int) error                                   // the whole filesystem
}

// kernel is the disk of everyday use.
type kernel struct{}

func (kernel) create(dir int, name string, perm uint32) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	})
}

func (kernel) mkdir(dir int, name string) error { return unix.Mkdirat(dir, name, 0o700) }

func (kernel) symlink(target string, dir int, name string) error {
	return unix.Symlinkat(target, dir, name)
}

func (kernel) link(fromDir int, from string, toDir int, to string) error {
	flags := 0
	if from == "" {
		flags = unix.AT_EMPTY_PATH
	}
	return unix.Linkat(fromDir, from, toDir, to, flags)
}

func (kernel) rename(fromDir int, from string, toDir int, to string) error {
	return unix.Renameat(fromDir, from, toDir, to)
}

func (kernel) remove(dir int, name string) error { return unix.Unlinkat(dir, name, 0) }

func (kernel) removeDir(dir int, name string) error {
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

func (kernel) stamp(dir int, name string, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

func (kernel) sync(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Fdatasync(fd) })
	return err
}

func (kernel) writeOut(fd int) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	_, err := retry(func() (int, error) { return 0, unix.SyncFileRange(fd, 0, 0, all) })
	return err
}

func (kernel) syncDir(fd int) error {
	if _, err := retry(func() (int, error) { return 0, unix.Fsync(fd) }); err != nil {
		return err
	}
	var st unix.Stat_t // xfs finds nothing left to wait for in a directory if it was shut down by an error of the disk, and says so by this alone
	return unix.Fstat(fd, &st)
}

func (kernel) syncfs(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Syncfs(fd) })
	return err
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// openRead opens a regular file for reading; a symlink is ELOOP.
func openRead(dir int, name string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
}

// openDir opens a directory; a symlink is ENOTDIR.
func openDir(dir int, name string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// lstat is fstatat without following.
func lstat(dir int, name string, st *unix.Stat_t) error {
	return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
}
