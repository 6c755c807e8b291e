package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// CheckoutOptions says how Checkout writes.
type CheckoutOptions struct {
	UserXattr bool      // overlay's marks are user.overlay.*
	Root      *RootMeta // owner and mode of a root directory that the tar did not list, if not nil
}

// RootMeta is the owner and the permission bits of a root directory.
type RootMeta struct{ UID, GID, Mode uint32 }

// Checkout writes the exact tree of a layer commit into the empty directory dir, from the repository alone: an overlayfs layer as ingest
// makes it. Files are copies, reflinked where the filesystem can, never links.
func Checkout(ctx context.Context, r *store.Repo, commit object.Checksum, dir string, o CheckoutOptions) error {
	root, err := retryEINTR(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	c := &checkout{repo: r, o: o, root: root, prefix: overlayPrefix(o.UserXattr), firsts: make(map[int]string)}
	err = walkCommit(ctx, r, commit, walkFuncs{entry: c.entry, leave: c.leave})
	c.close()
	if err != nil {
		return fmt.Errorf("check layer commit %s out: %w", commit, err)
	}
	return nil
}

// A checkout writes the entries of a walk.
type checkout struct {
	repo   *store.Repo
	o      CheckoutOptions
	root   int
	prefix string
	dirs   []checkoutDir  // directories that the walk is in
	firsts map[int]string // paths of the first names of hardlinks

	// place, if not nil, may put an entry that has an object into the tree in a way of its own.
	place func(dir int, name string, e *Entry) (done bool, err error)
}

// close closes what an error left open.
func (c *checkout) close() {
	for _, d := range c.dirs {
		if d.fd >= 0 {
			unix.Close(d.fd)
		}
	}
}

// A checkoutDir is a directory that gets its metadata when its content is complete.
type checkoutDir struct {
	fd int
	e  Entry
}

// maxHeldDirs is how many of the directories that the walk is in are kept open, besides the root.
const maxHeldDirs = 512

// enter goes into a directory.
func (c *checkout) enter(fd int, e *Entry) {
	c.dirs = append(c.dirs, checkoutDir{fd, *e})
	if far := len(c.dirs) - 1 - maxHeldDirs; far > 0 {
		unix.Close(c.dirs[far].fd)
		c.dirs[far].fd = -1
	}
}

// drop goes back to the directory above.
func (c *checkout) drop() error {
	last := len(c.dirs) - 1
	fd := c.dirs[last].fd
	c.dirs = c.dirs[:last]
	defer unix.Close(fd)
	if last == 0 || c.dirs[last-1].fd >= 0 {
		return nil
	}
	up, err := retryEINTR(func() (int, error) {
		return unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("open the directory above: %w", err)
	}
	c.dirs[last-1].fd = up
	return nil
}

// leave finishes a directory.
func (c *checkout) leave() error {
	d := &c.dirs[len(c.dirs)-1]
	m := meta{uid: d.e.UID, gid: d.e.GID, mode: d.e.Mode, xattrs: d.e.Xattrs}
	if d.e.Path == "." && d.e.Implied && c.o.Root != nil {
		m.uid, m.gid, m.mode = c.o.Root.UID, c.o.Root.GID, unix.S_IFDIR|c.o.Root.Mode
	}
	xattrs, _ := diskXattrs(&m, c.prefix)
	if d.e.Opaque {
		xattrs = append(xattrs, object.Xattr{Name: c.prefix + "opaque", Value: []byte("y")})
	}
	if err := dressOpenDir(d.fd, &m, xattrs, c.repo.Label(), d.e.MTime); err != nil {
		return fmt.Errorf("%q: %w", d.e.Path, err)
	}
	return c.drop()
}

func (c *checkout) entry(e *Entry) error {
	if err := c.write(e); err != nil {
		return fmt.Errorf("write %q: %w", e.Path, err)
	}
	return nil
}

func (c *checkout) write(e *Entry) error {
	if e.Path == "." {
		c.enter(c.root, e)
		return nil
	}
	dir, name := c.dirs[len(c.dirs)-1].fd, path.Base(e.Path)
	switch {
	case e.Whiteout:
		return makeWhiteout(dir, name, c.repo.Label())
	case e.IsDir():
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return err
		}
		fd, err := openDirAt(dir, name)
		if err != nil {
			return err
		}
		c.enter(fd, e)
		return nil
	case e.First != e.Index:
		return c.link(dir, name, e)
	}
	done := false
	if c.place != nil {
		var err error
		if done, err = c.place(dir, name, e); err != nil {
			return err
		}
	}
	if !done {
		if err := c.inode(dir, name, e); err != nil {
			return err
		}
	}
	if e.linked {
		c.firsts[e.Index] = e.Path
	}
	return nil
}

// link makes a further name of something written before.
func (c *checkout) link(dir int, name string, e *Entry) error {
	parent, base := splitName(c.firsts[e.First])
	fd, err := openTarDir(c.root, parent)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, base, dir, name, 0)
}

// inode makes a file, a symlink or a special.
func (c *checkout) inode(dir int, name string, e *Entry) error {
	if e.object && e.Mode == unix.S_IFREG {
		return c.file(dir, name, e)
	}
	if err := e.Load(c.repo); err != nil {
		return err
	}
	var err error
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		err = unix.Symlinkat(e.Target, dir, name)
	default:
		err = unix.Mknodat(dir, name, e.Mode&unix.S_IFMT, int(unix.Mkdev(e.Major, e.Minor)))
	}
	if err != nil {
		return err
	}
	m := meta{uid: e.UID, gid: e.GID, mode: e.Mode, xattrs: e.Xattrs}
	xattrs, _ := diskXattrs(&m, c.prefix)
	return dress(dir, name, &m, xattrs, c.repo.Label(), e.MTime)
}

// file copies a regular file.
func (c *checkout) file(dir int, name string, e *Entry) error {
	h, from, err := c.repo.OpenFile(e.Checksum)
	if err != nil {
		return err
	}
	if from != nil {
		defer from.Close()
	}
	var size int64
	if from != nil {
		st, err := from.Stat()
		if err != nil {
			return err
		}
		size = st.Size()
	}
	if err := e.fill(h, size); err != nil {
		return err
	}
	m := meta{uid: e.UID, gid: e.GID, mode: e.Mode, xattrs: e.Xattrs}
	xattrs, _ := diskXattrs(&m, c.prefix)
	return copyFile(dir, name, from, size, &m, xattrs, c.repo.Label(), e.MTime)
}

// copyFile makes a regular file with the content of another, and its metadata: owner before mode before attributes, since each may change
// what comes before.
func copyFile(dir int, name string, from *os.File, size int64, m *meta, xattrs []object.Xattr, label string, t store.Time) (err error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := copyContent(to, from, size); err != nil {
		return err
	}
	if label != "" {
		xattrs = append(xattrs[:len(xattrs):len(xattrs)], object.Xattr{Name: labelXattr, Value: append([]byte(label), 0)})
	}
	if err := unix.Fchown(fd, int(m.uid), int(m.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, m.mode&0o7777); err != nil {
		return err
	}
	for _, x := range xattrs {
		if err := setFdXattr(fd, x.Name, x.Value); err != nil {
			return err
		}
	}
	return setTime(dir, name, t)
}

// copyContent shares the blocks of a file, or copies it with its holes.
func copyContent(to, from *os.File, size int64) error {
	if size == 0 || unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
		return nil
	}
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := from.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := to.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := from.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if n, err := io.Copy(to, io.LimitReader(from, end-start)); err != nil || n != end-start {
			return errors.Join(err, fmt.Errorf("copied %d of %d bytes", n, end-start))
		}
		at = end
	}
	return nil
}
