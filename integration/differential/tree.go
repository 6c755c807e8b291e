package differential

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Node is what a process sees of one path.
type Node struct {
	Path     string // "." for the root, else without a leading "/"
	Mode     uint32 // with the type
	UID, GID uint32
	Rdev     uint64
	Size     int64
	Nlink    uint64
	Blocks   int64 // of 512 bytes
	Sec      int64 // modification time
	Nsec     int64
	Dev, Ino uint64
	Sum      [sha256.Size]byte // of a regular file's content
	Hole     int64             // bytes in holes, but for the last block
	Dense    int64             // bytes of long runs of zeros that are no holes
	Target   string            // of a symlink
	Xattrs   map[string]string
}

// Type is the S_IFMT part of the mode.
func (n *Node) Type() uint32 { return n.Mode & unix.S_IFMT }

// Tree is a walked root: parents before children, names by bytes.
type Tree struct {
	Nodes []*Node
	paths map[string]*Node
	inode map[[2]uint64][]string
}

// At returns the node of a path, or nil.
func (t *Tree) At(path string) *Node { return t.paths[path] }

// Names returns all paths that are the same inode as n.
func (t *Tree) Names(n *Node) []string { return t.inode[[2]uint64{n.Dev, n.Ino}] }

// Walk reads everything below root. It opens directory by directory, so that
// no path is too long for it, and never follows a symlink.
func Walk(root string) (*Tree, error) {
	t := &Tree{paths: map[string]*Node{}, inode: map[[2]uint64][]string{}}
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	n := &Node{Path: "."}
	if err := n.stat(int(dir.Fd()), "."); err != nil {
		return nil, err
	}
	if err := n.readXattrs(int(dir.Fd()), "."); err != nil {
		return nil, err
	}
	t.add(n)
	return t, t.walk(dir, "")
}

func (t *Tree) add(n *Node) {
	t.Nodes = append(t.Nodes, n)
	t.paths[n.Path] = n
	if n.Type() != unix.S_IFDIR && !n.Phantom() {
		key := [2]uint64{n.Dev, n.Ino}
		t.inode[key] = append(t.inode[key], n.Path)
	}
}

func (t *Tree) walk(dir *os.File, prefix string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	slices.Sort(names)
	for _, name := range names {
		n := &Node{Path: prefix + name}
		if err := n.read(int(dir.Fd()), name); err != nil {
			return err
		}
		t.add(n)
		if n.Type() != unix.S_IFDIR {
			continue
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %q: %w", n.Path, err)
		}
		sub := os.NewFile(uintptr(fd), name)
		err = t.walk(sub, n.Path+"/")
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Phantom reports whether the name is listed but leads to nothing: so overlayfs
// shows a 0:0 device in a directory that only one layer has.
func (n *Node) Phantom() bool { return n.Mode == 0 }

func (n *Node) read(dir int, name string) error {
	err := n.stat(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	switch n.Type() {
	case unix.S_IFREG:
		if err := n.readContent(dir, name); err != nil {
			return err
		}
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax+1)
		k, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return fmt.Errorf("read the target of %q: %w", n.Path, err)
		}
		n.Target = string(buf[:k])
	}
	return n.readXattrs(dir, name)
}

func (n *Node) stat(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %q: %w", n.Path, err)
	}
	n.Mode, n.UID, n.GID, n.Rdev, n.Size = st.Mode, st.Uid, st.Gid, st.Rdev, st.Size
	n.Nlink, n.Blocks, n.Dev, n.Ino = uint64(st.Nlink), st.Blocks, st.Dev, st.Ino
	n.Sec, n.Nsec = st.Mtim.Sec, st.Mtim.Nsec
	return nil
}

func (n *Node) readContent(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", n.Path, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	h := sha256.New()
	z := &zeroRuns{}
	k, err := io.Copy(io.MultiWriter(h, z), f)
	if err != nil {
		return fmt.Errorf("read %q: %w", n.Path, err)
	}
	if k != n.Size {
		return fmt.Errorf("read %q: %d bytes where stat says %d", n.Path, k, n.Size)
	}
	h.Sum(n.Sum[:0])
	return n.readHoles(fd, z.end())
}

// readXattrs goes through /proc, since there is no lgetxattrat in older
// kernels: the path stays short however deep the directory lies.
func (n *Node) readXattrs(dir int, name string) error {
	file := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	buf := make([]byte, 64<<10)
	k, err := unix.Llistxattr(file, buf)
	if err != nil {
		return fmt.Errorf("list the attributes of %q: %w", n.Path, err)
	}
	if k == 0 {
		return nil
	}
	n.Xattrs = map[string]string{}
	value := make([]byte, 64<<10)
	for _, attr := range bytes.Split(bytes.TrimSuffix(buf[:k], []byte{0}), []byte{0}) {
		v, err := unix.Lgetxattr(file, string(attr), value)
		if err != nil {
			return fmt.Errorf("read attribute %s of %q: %w", attr, n.Path, err)
		}
		n.Xattrs[string(attr)] = string(value[:v])
	}
	return nil
}

// privatePlace reports whether link counts are exact at this path (DESIGN §5).
func privatePlace(p string) bool {
	p = path.Clean("/" + p)
	if strings.HasPrefix(p, "/etc/") {
		return true
	}
	return strings.HasPrefix(p, "/var/") && !strings.HasPrefix(p, "/var/lib/") && !strings.HasPrefix(p, "/var/cache/")
}
