package layers

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func (e *walkEntry) isRegular() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFREG }

// isLinked says whether the entry may be an inode of the repository, whose time is that of whoever stored it first.
func (e *walkEntry) isLinked() bool { return (e.isRegular() || e.isSymlink()) && e.st.Nlink > 1 }

// sameTimes says whether the times of two entries are no difference. With shared times those of linked files say nothing.
func (n *naiveWalk) sameTimes(e, old *walkEntry) bool {
	return sameTime(e.st.Mtim, old.st.Mtim) || n.sharedTimes && e.isLinked() && old.isLinked()
}

// sameContent reads two regular files of one size until they differ.
func sameContent(e, old *walkEntry) (same bool, err error) {
	a, err := e.open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	b, err := old.open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	const size = 64 << 10
	x, y := make([]byte, size), make([]byte, size)
	for {
		n, err := io.ReadFull(a, x)
		m, otherErr := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return true, nil
		case err != nil:
			return false, err
		case otherErr != nil:
			return false, otherErr
		}
	}
}

func (e *walkEntry) open() (*os.File, error) {
	fd, err := unix.Openat(e.dir.fd, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), e.name), nil
}
