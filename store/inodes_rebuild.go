package store

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// rebuildInodes makes a list from what the tree shows: whatever has more than one link may be shared. It writes the list
// back where it can, so that it is not made again at every opening.
func rebuildInodes(path, tree string) (*Inodes, error) {
	d, err := os.Open(tree)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: tree, Err: err}
	}
	var used lanesInUse
	err = walkTree(int(d.Fd()), func(e entry) error {
		if !e.kind.IsRegular() && e.kind != fs.ModeSymlink {
			return nil
		}
		var st unix.Stat_t
		if err := lstat(e.dir, e.name, &st); err != nil {
			return &os.PathError{Op: "stat", Path: e.name, Err: err}
		}
		if st.Nlink > 1 {
			used.set(st.Ino, LaneUnknown)
		}
		return nil
	})
	if err != nil {
		return nil, &os.PathError{Op: "list inodes of", Path: tree, Err: err}
	}
	b := encodeInodes(st.Ino, &used, nil)
	l := &Inodes{b: b}
	if err := l.parse(); err != nil {
		return nil, err
	}
	writeBack(path, b)
	return l, nil
}

// writeBack replaces a list. Where that cannot be done (another's store, a full disk) the list is made again next time.
func writeBack(path string, b []byte) {
	next := path + "." + randomName()
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		os.Remove(next)
	}
}
