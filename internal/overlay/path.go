package overlay

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path that a system call takes, in bytes, without its NUL.
const maxPath = unix.PathMax - 1

// openDir opens the directory at path, which may be longer than a system call takes.
func openDir(path string) (int, error) { return open(path, unix.O_RDONLY) }

// openPath is openDir for a directory that only has to be named.
func openPath(path string) (int, error) { return open(path, unix.O_PATH) }

func open(path string, mode int) (int, error) {
	dir, rest, err := shorten(path)
	if err != nil {
		return -1, err
	}
	defer closeDir(dir)
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, rest, mode|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// shorten returns an open directory and a path from there to what path names. The caller closes it with closeDir.
func shorten(path string) (int, string, error) {
	dir, rest := unix.AT_FDCWD, path
	for len(rest) > maxPath {
		cut := strings.LastIndexByte(rest[:maxPath], '/')
		if cut <= 0 {
			closeDir(dir)
			return -1, "", &os.PathError{Op: "open", Path: path, Err: unix.ENAMETOOLONG}
		}
		next, err := retry(func() (int, error) {
			return unix.Openat(dir, rest[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		closeDir(dir)
		if err != nil {
			return -1, "", &os.PathError{Op: "open", Path: path, Err: err}
		}
		dir, rest = next, strings.TrimLeft(rest[cut:], "/")
		if rest == "" {
			rest = "."
		}
	}
	return dir, rest, nil
}

func closeDir(dir int) {
	if dir >= 0 {
		unix.Close(dir)
	}
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
