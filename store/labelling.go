package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Labelling puts files of layers' trees into one tree outside of the repository, with SELinux labels of their own. A file with a label
// that is not the store's is a lane: an inode that other such trees share, and no container has. One goroutine may use it.
type Labelling struct {
	s      *Stage
	claims map[laneID]uint32   // the next n, by lane of n 0
	used   map[uint64]struct{} // inodes that the tree has
}

// A Labelled is a file that Put placed.
type Labelled struct {
	New  bool  // an inode was made; Publish must make it a lane
	Size int64 // bytes of its content

	id  laneID
	ino uint64
}

// NewLabelling begins a tree. The error matches ErrReadOnly if the repository cannot be changed.
func NewLabelling(r *Repo) (*Labelling, error) {
	s, err := r.NewStage(StageOptions{})
	if err != nil {
		return nil, err
	}
	return &Labelling{s: s, claims: map[laneID]uint32{}, used: map[uint64]struct{}{}}, nil
}

// Close ends it. What was put and not published stays in the tree and is no lane.
func (l *Labelling) Close() error { return l.s.Close() }

// Put places the file object c with a label as name in the directory dir. Name in from is that file, in a layer's tree, and shared with
// this repository. The error is an *AttributeError if the filesystem refuses the label.
func (l *Labelling) Put(from, dir int, name string, c object.Checksum, label string) (Labelled, error) {
	if err := errors.Join(checkName(name), checkLabel(label)); err != nil {
		return Labelled{}, err
	}
	var st unix.Stat_t
	if err := lstat(from, name, &st); err != nil {
		return Labelled{}, placeError("look at", name, err)
	}
	p := Labelled{Size: st.Size, id: laneID{sum: c, time: timeOf(&st), label: sumLabel(label)}}
	n := l.claims[p.id]
	l.claims[p.id]++
	p.id.n = n
	ino, err := l.link(dir, name, p.id, &st)
	if err == nil && ino == 0 {
		p.New = true
		ino, err = l.create(from, dir, name, label)
	}
	if err != nil {
		return Labelled{}, err
	}
	p.ino = ino
	l.used[ino] = struct{}{}
	return p, nil
}

// link links a lane, and returns its inode; 0 if there is none to link.
func (l *Labelling) link(dir int, name string, id laneID, like *unix.Stat_t) (uint64, error) {
	var st unix.Stat_t
	lanes, path := int(l.s.r.lanes.Fd()), id.path()
	switch err := lstat(lanes, path, &st); {
	case err == unix.ENOENT:
		return 0, nil
	case err != nil:
		return 0, placeError("look for", path, err)
	case !l.fits(&st, like):
		return 0, nil
	}
	switch err := l.s.r.disk.link(lanes, path, dir, name); err {
	case nil:
		return st.Ino, nil
	case unix.ENOENT, unix.EMLINK: // dropped just now, or full
		return 0, nil
	default:
		return 0, placeError("link", name, err)
	}
}

// fits tells if an inode can stand for another in the tree.
func (l *Labelling) fits(st, like *unix.Stat_t) bool {
	_, used := l.used[st.Ino]
	return !used && st.Mode == like.Mode && st.Uid == like.Uid && st.Gid == like.Gid && st.Size == like.Size &&
		timeOf(st) == timeOf(like) && !l.s.full(st)
}

// create makes an inode with the label, which shares the blocks of the one in the layer's tree where the filesystem can.
func (l *Labelling) create(from, dir int, name, label string) (uint64, error) {
	var st unix.Stat_t
	fd, err := openInode(from, name, &st)
	if err != nil {
		return 0, placeError("open", name, err)
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	h, err := headerOf(fd, from, name, &st)
	if err != nil {
		return 0, placeError("read", name, err)
	}
	it := &item{header: *h, time: timeOf(&st), size: st.Size, open: -1, source: fd}
	return l.s.create(dir, name, it, withLabel(h.Xattrs, label), false)
}

// Publish makes the new inodes of the tree lanes, once their bytes are durable: files calls add for each, with the name that it was put
// under. The directories of the tree keep their times. The error matches ErrOtherMount if the tree is where no link leads.
func (l *Labelling) Publish(ctx context.Context, files func(add func(dir int, name string, p Labelled) error) error) error {
	if err := l.s.r.syncfs(l.s.r.fd()); err != nil {
		return fmt.Errorf("publish labels: %w", err)
	}
	err := files(func(dir int, name string, p Labelled) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return l.publish(dir, name, p)
	})
	if err != nil {
		return fmt.Errorf("publish labels: %w", err)
	}
	return nil
}

// publish makes an inode a lane: under its number if that is free or its inode full, else it gives way to the inode that has the number,
// else under the next.
func (l *Labelling) publish(dir int, name string, p Labelled) error {
	var mine, st unix.Stat_t
	if err := lstat(dir, name, &mine); err != nil {
		return placeError("look at", name, err)
	}
	if mine.Ino != p.ino {
		return placeError("publish", name, unix.ESTALE)
	}
	lanes := int(l.s.r.lanes.Fd())
	for id := p.id; id.n < maxLanes; id.n++ {
		path := id.path()
		switch err := l.s.r.link(dir, name, lanes, path); err {
		case unix.EEXIST:
		case nil, unix.EMLINK:
			return nil
		default:
			return placeError("link", name, err)
		}
		switch err := lstat(lanes, path, &st); {
		case err == unix.ENOENT:
			id.n-- // dropped just now: the number is free
		case err != nil:
			return placeError("look for", path, err)
		case st.Ino == mine.Ino:
			return nil
		case l.s.full(&st):
			return l.s.succeed(dir, name, path)
		case l.fits(&st, &mine) && mine.Nlink == 1:
			if done, err := l.relink(dir, name, path, &st); done || err != nil {
				return err
			}
		}
	}
	return nil
}

// relink lets a name lead to a lane that somebody else made meanwhile. It reports whether it did.
func (l *Labelling) relink(dir int, name, path string, st *unix.Stat_t) (bool, error) {
	next := l.s.spareName()
	switch err := l.s.r.disk.link(int(l.s.r.lanes.Fd()), path, int(l.s.own.Fd()), next); err {
	case nil:
	case unix.EMLINK, unix.ENOENT:
		return false, nil
	default:
		return false, placeError("link", path, err)
	}
	err := keepTime(dir, func() error { return l.s.r.disk.rename(int(l.s.own.Fd()), next, dir, name) })
	if err != nil {
		return false, placeError("link", name, err)
	}
	l.used[st.Ino] = struct{}{}
	return true, nil
}

// sumLabel is what lanes are named by.
func sumLabel(label string) labelSum {
	sum := sha256.Sum256([]byte(label))
	return labelSum(sum[:len(labelSum{})])
}

// labelOf is the label among attributes, without its NUL.
func labelOf(xattrs []object.Xattr) string {
	for _, x := range xattrs {
		if x.Name == labelName {
			return strings.TrimSuffix(string(x.Value), "\x00")
		}
	}
	return ""
}
