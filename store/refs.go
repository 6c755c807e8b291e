package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Names are a repository's refs. Names are relative to refs/heads.
type Names struct{ root *root }

// maxAliases is how many aliases may lead from one to the next.
const maxAliases = 16

// Ref returns the commit that a ref names; the error matches fs.ErrNotExist if there is no such ref.
func (n *Names) Ref(name string) (object.Checksum, error) {
	if err := checkRef(name); err != nil {
		return object.Checksum{}, err
	}
	return n.root.readRef("refs/heads/" + name)
}

// Refs returns all refs below prefix ("layer" gives "layer/x"; "" gives all) with their full names. Files that are not
// called like refs are left out.
func (n *Names) Refs(prefix string) (map[string]object.Checksum, error) {
	out := map[string]object.Checksum{}
	top := headsDir
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		if err := checkRef(prefix); err != nil {
			return nil, err
		}
		top += "/" + prefix
	}
	err := n.root.walkRefs(top, nil, func(p string, c object.Checksum, err error) error {
		if err == nil {
			out[strings.TrimPrefix(p, headsDir+"/")] = c
		}
		return err
	})
	return out, err
}

// SetRef makes a ref name a commit that is in the repository. The ref's content is durable before its name changes.
func (n *Names) SetRef(name string, c object.Checksum) error {
	r := n.root
	if err := errors.Join(r.writable(), checkRef(name)); err != nil {
		return err
	}
	unlock, err := r.lockShared(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	commit := object.Name{Checksum: c, Type: object.TypeCommit}
	if ok, err := (&Objects{r}).Has(commit); err != nil || !ok {
		return errors.Join(err, &MissingError{commit})
	}
	next := "tmp/ref-" + randomName()
	if err := r.makeDirs(next); err != nil {
		return err
	}
	if err := r.writeRef(r.fd(), next, c, r.disk.sync); err != nil {
		return err
	}
	if strings.HasPrefix(name, layerRefs) { // one that is not counted is read by every removal
		_ = r.withIndex(func(x *index.Index) error { return x.AddRef(c, r.fd(), next) })
	}
	return r.placeRef(r.fd(), next, name)
}

// MoveRef renames a ref, replacing what had the new name; no moment in between has neither.
func (n *Names) MoveRef(from, to string) error {
	r := n.root
	if err := errors.Join(r.writable(), checkRef(from), checkRef(to)); err != nil {
		return err
	}
	// libostree collects refs directory by directory: without the lock its prune could see neither name.
	unlock, err := r.lockShared(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	return r.placeRef(int(r.heads.Fd()), from, to)
}

// DeleteRef removes a ref. It is no error if there is none.
func (n *Names) DeleteRef(name string) error {
	r := n.root
	if err := errors.Join(r.writable(), checkRef(name)); err != nil {
		return err
	}
	unlock, locked := r.lockForRefs()
	defer unlock()
	err := r.changeRef(name, locked, func() error { return r.disk.remove(int(r.heads.Fd()), name) })
	if err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
		return fmt.Errorf("delete ref %s: %w", name, err)
	}
	return r.bump()
}

// writeRef makes a ref's file under a name that is no ref yet, and waits for it as it is told to.
func (r *root) writeRef(dir int, name string, c object.Checksum, wait func(fd int) error) error {
	fd, err := r.disk.create(dir, name, 0o644)
	if err != nil {
		return fmt.Errorf("create ref: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(c.String() + "\n")
	if err == nil {
		err = wait(fd)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write ref: %w", err)
	}
	return nil
}

// placeRef gives a ref's file its name. The caller holds the shared lock.
func (r *root) placeRef(dir int, from, name string) error {
	rename := func() error { return r.disk.rename(dir, from, int(r.heads.Fd()), name) }
	err := r.changeRef(name, true, rename)
	if err == unix.ENOENT {
		if err := r.makeDirs(headsDir + "/" + name); err != nil {
			return err
		}
		err = rename()
	}
	if err != nil {
		return fmt.Errorf("place ref %s: %w", name, err)
	}
	return r.bump()
}

// readRef reads the ref at a path relative to the repository. An alias is a relative symlink to another ref below the
// same top directory; it is resolved here, never by the kernel.
func (r *root) readRef(p string) (object.Checksum, error) {
	top := strings.Join(strings.SplitN(p, "/", 3)[:2], "/") + "/"
	for range maxAliases {
		var st unix.Stat_t
		if err := lstat(r.fd(), p, &st); err != nil {
			return object.Checksum{}, &os.PathError{Op: "read ref", Path: p, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return r.parseRef(p)
		}
		target, err := readTarget(r.fd(), p)
		if err != nil {
			return object.Checksum{}, &os.PathError{Op: "read ref", Path: p, Err: err}
		}
		next := path.Join(path.Dir(p), target)
		if path.IsAbs(target) || !strings.HasPrefix(next, top) {
			return object.Checksum{}, fmt.Errorf("ref %s is an alias of %q, outside %s: %w", p, target, top, fs.ErrInvalid)
		}
		p = next
	}
	return object.Checksum{}, fmt.Errorf("ref %s: more than %d aliases: %w", p, maxAliases, fs.ErrInvalid)
}

func (r *root) parseRef(p string) (object.Checksum, error) {
	b, err := readAt(r.fd(), p)
	if err != nil {
		return object.Checksum{}, &os.PathError{Op: "read ref", Path: p, Err: err}
	}
	c, err := object.ParseChecksum(strings.TrimRight(string(b), " \t\r\n"))
	if err != nil {
		return c, fmt.Errorf("ref %s: %w", p, err)
	}
	return c, nil
}

// rootDirs hold the refs that keep objects alive. Others' names count as ours do.
var rootDirs = []string{headsDir, "refs/remotes", "refs/mirrors"}

// walkRefs calls visit for every ref below top, which need not exist, with its path. What vanishes while it walks is left
// out; what cannot be read is visited with the error, and the walk goes on if visit returns nil. Refs whose commits are
// known by path are not read, and directories that are known are left out.
func (r *root) walkRefs(top string, known map[string]object.Checksum, visit func(p string, c object.Checksum, err error) error) error {
	fd, err := openDir(r.fd(), top)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "list refs", Path: top, Err: err}
	}
	d := os.NewFile(uintptr(fd), top)
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return fmt.Errorf("list refs: %w", err)
	}
	for _, e := range entries {
		p := top + "/" + e.Name()
		switch {
		case !isFragment(e.Name()):
			continue
		case e.IsDir():
			if _, left := known[p]; !left {
				err = r.walkRefs(p, known, visit)
			}
		case e.Type().IsRegular() || e.Type() == fs.ModeSymlink:
			err = r.visitRef(p, known, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *root) visitRef(p string, known map[string]object.Checksum, visit func(p string, c object.Checksum, err error) error) error {
	c, ok := known[p]
	var err error
	if !ok {
		c, err = r.readRef(p)
	}
	if errors.Is(err, fs.ErrNotExist) && r.refGone(p) {
		return nil
	}
	return visit(p, c, err)
}

// refGone tells a ref that vanished from an alias that leads nowhere.
func (r *root) refGone(p string) bool {
	var st unix.Stat_t
	return lstat(r.fd(), p, &st) == unix.ENOENT
}

// settledSince is the age from which a directory's change time is sure to differ from that of its next change.
const settledSince = 50 * time.Millisecond

// since is when a directory was last changed, and whether that is long enough ago for the next change to show: kernels
// before 6.13 stamp changes with a clock of up to 10 ms.
func since(st *unix.Stat_t, now time.Time) (changed unix.Timespec, settled bool) {
	return st.Ctim, Settled(st, now)
}

// Settled tells if the next change of a directory is sure to give it another change time.
func Settled(st *unix.Stat_t, now time.Time) bool {
	return now.Sub(time.Unix(st.Ctim.Sec, st.Ctim.Nsec)) > settledSince
}
