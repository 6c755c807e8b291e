// The index of how many commits reach an object (package index) stands between a removal and the rest of the store. It
// is derived: whatever goes wrong with it, the answer is to walk the trees of all refs, and Prune makes it anew.

package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// counted is a repository's index, opened at its first use.
type counted struct {
	mu sync.Mutex
	x  *index.Index
}

// withIndex calls f with the index, which f has for itself meanwhile.
func (r *root) withIndex(f func(*index.Index) error) error {
	r.counted.mu.Lock()
	defer r.counted.mu.Unlock()
	if r.counted.x != nil && r.counted.x.Deleted() { // by another process, which made it anew
		r.counted.x.Close()
		r.counted.x = nil
	}
	if r.counted.x == nil {
		x, err := index.Open(r.path+"/"+indexDir, indexDisk{r})
		if err != nil {
			return fmt.Errorf("open index: %w", err)
		}
		r.counted.x = x
	}
	return f(r.counted.x)
}

// indexDisk lets the index change its directories through the repository's disk.
type indexDisk struct{ r *root }

func (d indexDisk) Create(dir int, name string, perm uint32) (int, error) {
	return d.r.disk.create(dir, name, perm)
}
func (d indexDisk) Mkdir(dir int, name string) error { return d.r.disk.mkdir(dir, name) }
func (d indexDisk) Link(fromDir int, from string, toDir int, to string) error {
	return d.r.disk.link(fromDir, from, toDir, to)
}
func (d indexDisk) Rename(fromDir int, from string, toDir int, to string) error {
	return d.r.disk.rename(fromDir, from, toDir, to)
}
func (d indexDisk) Remove(dir int, name string) error { return d.r.disk.remove(dir, name) }
func (d indexDisk) Sync(fd int) error                 { return d.r.disk.sync(fd) }

func (r *root) closeIndex() error {
	r.counted.mu.Lock()
	defer r.counted.mu.Unlock()
	if r.counted.x == nil {
		return nil
	}
	x := r.counted.x
	r.counted.x = nil
	return x.Close()
}

// knows tells if the index counts a commit. Where the index cannot be read it counts nothing.
func (r *root) knows(c object.Checksum) bool {
	var known bool
	err := r.withIndex(func(x *index.Index) (err error) {
		known, err = x.Known(c)
		return err
	})
	return known && err == nil
}

// stagedList is the name in .objects of a commit's list for the index.
const stagedList = "list"

// noteKeys remembers what a tree or commit of this stage reaches.
func (s *Stage) noteKeys(add func(key func(object.Checksum))) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(func(c object.Checksum) { s.keys = append(s.keys, index.KeyOf(c)) })
}

// putList writes the list of all that was put into the stage, which is what its commit reaches. It is durable with the
// rest of the stage. A commit with a parent reaches more than its tree and is not counted, but walked.
func (s *Stage) putList(c *object.Commit, sum object.Checksum) error {
	if !c.Parent.IsZero() {
		return nil
	}
	s.noteKeys(func(key func(object.Checksum)) { key(c.Tree); key(c.Meta); key(sum) })
	s.lists.of = sum
	if s.r.knows(sum) {
		return nil
	}
	return s.writeList(s.o.NoSync)
}

// writeList writes what was noted for the commit that it is the list of.
func (s *Stage) writeList(sync bool) error {
	own := int(s.own.Fd())
	fd, err := s.r.disk.create(own, stagedList, 0o600)
	if err == unix.EEXIST { // of a commit that this stage made before
		if err = s.r.disk.remove(own, stagedList); err == nil {
			fd, err = s.r.disk.create(own, stagedList, 0o600)
		}
	}
	if err != nil {
		return placeError("create", stagedList, err)
	}
	err = writeAll(fd, index.AppendList(nil, s.keys), 0)
	if err == nil && sync {
		err = s.r.disk.sync(fd)
	}
	if err := errors.Join(err, s.let(fd)); err != nil {
		return &os.PathError{Op: "write", Path: stagedList, Err: err}
	}
	s.lists.written = s.lists.of
	return nil
}

// count adds the commit and its ref to the index. It comes after the commit and before its ref: what is counted and not
// there costs a Prune, what is there and not counted would cost objects. The caller holds the shared lock.
func (s *Stage) count(c object.Checksum) error {
	if s.lists.of != c {
		return nil
	}
	if s.lists.written != c && !s.r.knows(c) { // it was known when the commit was put, and went since
		if err := s.writeList(true); err != nil {
			return err
		}
	}
	return s.r.withIndex(func(x *index.Index) error {
		if s.lists.written == c {
			if err := x.Add(c, s.own, stagedList); err != nil {
				return err
			}
		}
		return x.AddRef(c, int(s.own.Fd()), stagedRefFile)
	})
}

// compact lets the index merge what has gathered, if nobody is in the way. It is not important enough to wait, or to
// fail for.
func (r *root) compact() {
	_ = r.withIndex(func(x *index.Index) error {
		c, err := x.Compact(false)
		if c == nil || err != nil {
			return err
		}
		unlock, err := r.tryLockExclusive()
		if err != nil {
			return err
		}
		defer unlock()
		return c.Commit()
	})
}

// strikeCounted strikes the candidates that commits of the index reach. A release has made it forget its own before.
func (m *marker) strikeCounted() error {
	if len(m.want) == 0 || !m.asks {
		return nil
	}
	return m.r.withIndex(func(x *index.Index) error {
		stamp, err := x.Stamp()
		if err != nil || stamp == m.stamp && stamp != (index.Stamp{}) {
			return err
		}
		keys := make([]index.Key, 0, len(m.want))
		for n := range m.want {
			keys = append(keys, index.KeyOf(n.Checksum))
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		counts, err := x.Count(keys)
		for range maxAgain { // without the lock a list may move while it is read
			if !errors.Is(err, os.ErrNotExist) {
				break
			}
			counts, err = x.Count(keys)
		}
		if err != nil {
			return err
		}
		for n := range m.want {
			i, _ := slices.BinarySearch(keys, index.KeyOf(n.Checksum))
			if counts[i] > 0 {
				delete(m.want, n)
			}
		}
		m.stamp = stamp
		return nil
	})
}
