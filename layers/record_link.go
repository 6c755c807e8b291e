package layers

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A record can be the targets of symlinks: `record`, and `record.1` and so on for what does not fit. A symlink is there whole after a
// power cut or is not there, without a sync, since its target is no file's data but a part of the directory tree, which filesystems
// write in order. A file of which nobody waits for the bytes may be empty after a cut, under its final name.

// linkPiece is how much of a record one symlink holds. XFS takes 1,023 bytes.
const linkPiece = 1000

// pieceName names a part of the record whose first part is path.
func pieceName(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// writeLinks makes a record of symlinks. The first comes last, and is what makes it a record.
func writeLinks(path string, b []byte) error {
	for n := (len(b) - 1) / linkPiece; n >= 0; n-- {
		piece, name := string(b[n*linkPiece:min(len(b), (n+1)*linkPiece)]), pieceName(path, n)
		err := unix.Symlink(piece, name)
		if err == unix.EEXIST {
			if err = unix.Unlink(name); err == nil {
				err = unix.Symlink(piece, name)
			}
		}
		if err != nil {
			return &os.PathError{Op: "symlink", Path: name, Err: err}
		}
	}
	return nil
}

// removeLinks removes what is left of a record of symlinks that had not more than size bytes, when a file has taken its place.
func removeLinks(path string, size int) error {
	if size <= linkPiece || !exists(pieceName(path, 1)) { // the others go before that
		return nil
	}
	for n := size / linkPiece; n > 0; n-- {
		name := pieceName(path, n)
		if err := unix.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &os.PathError{Op: "unlink", Path: name, Err: err}
		}
	}
	return nil
}

// readLinks reads a record of symlinks, by its path in a directory.
func readLinks(dir int, path string) ([]byte, error) {
	var all []byte
	for n := 0; ; n++ {
		var b [linkPiece + 1]byte
		size, err := unix.Readlinkat(dir, pieceName(path, n), b[:])
		if err == unix.ENOENT && n > 0 {
			return all, nil // the last one was full
		}
		if err != nil {
			return nil, &os.PathError{Op: "readlink", Path: pieceName(path, n), Err: err}
		}
		all = append(all, b[:size]...)
		if size != linkPiece {
			return all, nil
		}
	}
}
