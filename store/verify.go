package store

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// verify reads the file name in dir and says why it is not the object n; "" means that it is. For a file object the
// header is made from the inode, as bare mode demands.
func (r *root) verify(dir int, name string, n object.Name) (reason string, err error) {
	if n.Type != object.TypeFile {
		b, err := readAt(dir, name)
		if err != nil {
			return "", err
		}
		return verifyMetadata(n, b), nil
	}
	return r.verifyFile(dir, name, n.Checksum, nil)
}

// verifyLane is verify for a lane: one with a label of its own is the object with that label in place of the store's.
func (r *root) verifyLane(l laneID) (reason string, err error) {
	var relabel func(*object.FileHeader) string
	if l.label != (labelSum{}) {
		relabel = func(h *object.FileHeader) string {
			if label := labelOf(h.Xattrs); sumLabel(label) != l.label {
				return fmt.Sprintf("its label is %q, which is not the one in its name", label)
			}
			h.Xattrs = withLabel(h.Xattrs, r.label)
			return ""
		}
	}
	return r.verifyFile(int(r.lanes.Fd()), l.path(), l.sum, relabel)
}

// verifyFile reads a file and says why it is not the object c. With change, that turns the header of the inode into the object's first, or
// says what is wrong with it.
func (r *root) verifyFile(dir int, name string, c object.Checksum, change func(*object.FileHeader) string) (reason string, err error) {
	var st unix.Stat_t
	fd, err := openInode(dir, name, &st)
	if err != nil {
		return "", err
	}
	f := (*os.File)(nil)
	if fd >= 0 {
		f = os.NewFile(uintptr(fd), name)
		defer f.Close()
	}
	h, err := headerOf(fd, dir, name, &st)
	if err != nil {
		return "", err
	}
	if change != nil {
		if reason := change(h); reason != "" {
			return reason, nil
		}
	}
	sum, err := h.NewHash()
	if err != nil {
		return "its header cannot be encoded: " + err.Error(), nil
	}
	if f != nil {
		b := chunks.Get().(*[]byte)
		defer chunks.Put(b)
		if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, *b); err != nil {
			return "it cannot be read: " + err.Error(), nil
		}
	}
	if got := object.Checksum(sum.Sum(nil)); got != c {
		return "it hashes to " + got.String(), nil
	}
	return "", nil
}

// verifyMetadata says why bytes are not the object n.
func verifyMetadata(n object.Name, b []byte) string {
	if got := object.Sum(b); got != n.Checksum {
		return "it hashes to " + got.String()
	}
	var into decoder
	switch n.Type {
	case object.TypeCommit:
		into = new(object.Commit)
	case object.TypeDirTree:
		into = new(object.DirTree)
	default:
		into = new(object.DirMeta)
	}
	if err := into.UnmarshalBinary(b); err != nil {
		return err.Error()
	}
	return ""
}
