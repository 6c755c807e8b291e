package layers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// maxOpenDirs bounds how many directories of one path a walk keeps open. Deeper ones close their parent
// and find it again through "..": a container can nest directories without limit, descriptors are few.
const maxOpenDirs = 128

// A dirHandle is an open directory of a walk that goes down by names and up by close.
type dirHandle struct {
	fd     int // -1 while a descendant has it closed
	dev    uint64
	ino    uint64
	depth  int
	parent *dirHandle
}

// openDirHandle opens the directory where a walk begins. Symlinks in path are followed.
func openDirHandle(path string) (*dirHandle, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	// Attributes of what cannot be opened are read through /proc. Without it every such entry would seem to have vanished.
	var st unix.Stat_t
	if proc := fmt.Sprintf("/proc/self/fd/%d", fd); unix.Lstat(proc, &st) != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "find", Path: proc, Err: errNoProc}
	}
	return newDirHandle(fd, nil)
}

var errNoProc = errors.New("proc is not mounted")

func newDirHandle(fd int, parent *dirHandle) (*dirHandle, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	d := &dirHandle{fd: fd, dev: uint64(st.Dev), ino: st.Ino, parent: parent}
	if parent != nil {
		d.depth = parent.depth + 1
	}
	return d, nil
}

// child opens the subdirectory name. No symlink is followed.
func (d *dirHandle) child(name string) (*dirHandle, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	c, err := newDirHandle(fd, d)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// suspend lets go of the directory's descriptor while the walk is in a deep descendant; close of that descendant brings it back.
func (d *dirHandle) suspend() {
	if d.depth >= maxOpenDirs && d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// close ends the work in the directory and makes its parent usable again.
func (d *dirHandle) close() error {
	var err error
	if p := d.parent; p != nil && p.fd < 0 {
		err = d.reopenParent()
	}
	unix.Close(d.fd)
	d.fd = -1
	return err
}

func (d *dirHandle) reopenParent() error {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(d.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("open parent directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return fmt.Errorf("stat parent directory: %w", err)
	}
	if uint64(st.Dev) != d.parent.dev || st.Ino != d.parent.ino {
		unix.Close(fd)
		return fmt.Errorf("return to parent directory: %w", unix.ESTALE) // it was moved away under the walk
	}
	d.parent.fd = fd
	return nil
}

var direntBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// names lists the directory in the order of bytes.
func (d *dirHandle) names() ([]string, error) {
	var names []string
	buf := direntBuffers.Get().(*[32 << 10]byte)
	defer direntBuffers.Put(buf)
	for {
		n, err := retryEINTR(func() (int, error) { return unix.Getdents(d.fd, buf[:]) })
		if err == unix.ENOENT { // removed while open
			break
		}
		if err != nil {
			return nil, os.NewSyscallError("getdents", err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names, nil
}

// stat describes the entry name itself, not what it points to.
func (d *dirHandle) stat(name string, st *unix.Stat_t) error {
	_, err := retryEINTR(func() (int, error) {
		return 0, unix.Fstatat(d.fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return err
}

// readlink returns the target of the symlink name.
func (d *dirHandle) readlink(name string) (string, error) {
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(d.fd, name, b)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// attrs gives access to the extended attributes of the entry name without opening it.
func (d *dirHandle) attrs(name string) attrSource {
	return attrSource{fd: -1, path: fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name)}
}

// retryEINTR repeats a call that a signal interrupted; slow filesystems (FUSE, NFS) do that.
func retryEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// vanished says whether an entry is gone, or is no directory any more, because a container removed it during the walk.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}
