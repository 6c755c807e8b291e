package pins

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Sharing is how the pinned store gets its content.
type Sharing string

// How content comes into the pinned store.
const (
	ByLink  Sharing = "link"    // hardlinks: directory entries only
	ByClone Sharing = "reflink" // inodes of their own that share their data, on one filesystem that is mounted twice
	ByCopy  Sharing = "copy"    // all is written again
)

// sharingOf finds out how files of the main store can come into the pinned one.
func sharingOf(graphroot, pinned string) (Sharing, error) {
	var a, b unix.Statx_t
	const mask = unix.STATX_MNT_ID | unix.STATX_INO
	if err := unix.Statx(unix.AT_FDCWD, graphroot, 0, mask, &a); err != nil {
		return "", &os.PathError{Op: "statx", Path: graphroot, Err: err}
	}
	if err := unix.Statx(unix.AT_FDCWD, pinned, 0, mask, &b); err != nil {
		return "", &os.PathError{Op: "statx", Path: pinned, Err: err}
	}
	if a.Dev_major != b.Dev_major || a.Dev_minor != b.Dev_minor {
		return ByCopy, nil
	}
	if a.Mnt_id == b.Mnt_id {
		return ByLink, nil
	}
	if canClone(filepath.Join(graphroot, driverName, "version"), pinned) {
		return ByClone, nil
	}
	return ByCopy, nil // link(2) does not cross mounts, even those of one filesystem
}

// canClone tries if a file can be reflinked into a directory.
func canClone(file, dir string) bool {
	from, err := os.Open(file)
	if err != nil {
		return false
	}
	defer from.Close()
	to, err := os.CreateTemp(dir, ".reflink-")
	if err != nil {
		return false
	}
	defer os.Remove(to.Name())
	defer to.Close()
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// checkPlace refuses a pinned store that would not outlive the main one, or that is another user's.
func checkPlace(pinned, graphroot, runroot string) error {
	if pinned == "" {
		return fmt.Errorf("pinned_store=none: there is no place for pins: %w", ErrRefused)
	}
	for what, dir := range map[string]string{"graphroot": graphroot, "runroot": runroot} {
		if inside(realPath(pinned), realPath(dir)) {
			return fmt.Errorf("the pinned store %s is inside of the %s %s, and would be removed with it: %w", pinned, what, dir, ErrRefused)
		}
		if inside(realPath(dir), realPath(pinned)) {
			return fmt.Errorf("the %s %s is inside of the pinned store %s: %w", what, dir, pinned, ErrRefused)
		}
	}
	var st unix.Stat_t
	err := unix.Stat(pinned, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: pinned, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("the pinned store %s is no directory: %w", pinned, ErrRefused)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("the pinned store %s belongs to user %d, and this is user %d: %w: %w", pinned, st.Uid, uid, ErrRefused, ErrReadOnly)
	}
	return nil
}

func inside(path, dir string) bool {
	return dir != "" && (path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/"))
}

// realPath follows symbolic links as far as the path exists.
func realPath(path string) string {
	for head, tail := filepath.Clean(path), ""; ; {
		if real, err := filepath.EvalSymlinks(head); err == nil {
			return filepath.Join(real, tail)
		}
		if head == "/" || head == "." {
			return filepath.Clean(path)
		}
		tail = filepath.Join(filepath.Base(head), tail)
		head = filepath.Dir(head)
	}
}

// syncFS writes the filesystem of a path to its disk.
func syncFS(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}
