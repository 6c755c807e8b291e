package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Going is what would be removed: refs, and the directories that go with them, each with its inode list.
type Going struct {
	Refs []string // relative to refs/heads
	Dirs []string // absolute
}

// Frees is what removing something would free, in bytes of blocks: those of inodes all of whose names go.
type Frees struct {
	Objects  int64 // how many objects would be deleted
	Data     int64 // of file objects
	Lanes    int64 // of further inodes of file objects
	Private  int64 // of inodes that only the directories have: files of their own, symlinks, devices
	Metadata int64 // of commits, dirtrees, dirmetas, refs and directories
}

// Sum is all bytes.
func (f Frees) Sum() int64 { return f.Data + f.Lanes + f.Private + f.Metadata }

// Frees says what removing g would free, and changes nothing. It costs what g holds, in stats and reads of trees; where the index does
// not know a commit that stays, that commit's trees too. What others publish or remove meanwhile may or may not count.
func (r *Repo) Frees(ctx context.Context, g Going) (Frees, error) {
	x := &freeing{r: r.root, nodes: map[uint64]*going{}}
	err := x.objects(ctx, g.Refs)
	for _, dir := range g.Dirs {
		if err == nil {
			err = x.dir(dir)
		}
	}
	if err == nil {
		err = x.lanes(g.Dirs)
	}
	if err != nil {
		return Frees{}, fmt.Errorf("count what goes: %w", err)
	}
	for _, n := range x.nodes {
		if n.links != n.gone {
			continue
		}
		switch {
		case n.object:
			x.sum.Data += n.bytes
		case n.lane:
			x.sum.Lanes += n.bytes
		default:
			x.sum.Private += n.bytes
		}
	}
	return x.sum, nil
}

// A freeing counts the names of inodes that go.
type freeing struct {
	r     *root
	sum   Frees
	nodes map[uint64]*going
}

// A going inode has names that go.
type going struct {
	links, gone  uint64
	bytes        int64
	object, lane bool
}

func (x *freeing) name(st *unix.Stat_t) *going {
	n := x.nodes[st.Ino]
	if n == nil {
		n = &going{links: uint64(st.Nlink), bytes: st.Blocks * 512}
		x.nodes[st.Ino] = n
	}
	n.gone++
	return n
}

// objects counts the objects that no other ref reaches.
func (x *freeing) objects(ctx context.Context, refs []string) error {
	drop := map[string]struct{}{}
	gone := map[object.Checksum]struct{}{}
	for _, ref := range refs {
		p := headsDir + "/" + ref
		c, err := x.r.readRef(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		drop[p] = struct{}{}
		gone[c] = struct{}{}
		var st unix.Stat_t
		if err := lstat(x.r.fd(), p, &st); err == nil && st.Nlink == 1 {
			x.sum.Metadata += st.Blocks * 512
		}
	}
	want := map[object.Name]struct{}{}
	seen := map[object.Checksum]struct{}{}
	for c := range gone {
		want[object.Name{Checksum: c, Type: object.TypeCommit}] = struct{}{}
		commit, err := (&Objects{x.r}).ReadCommit(c)
		if err == nil {
			err = x.r.eachReached(ctx, commit, seen, func(n object.Name) { want[n] = struct{}{} })
		}
		if err != nil {
			return err
		}
	}
	if len(want) == 0 {
		return nil
	}
	counted, err := x.strikeWalked(ctx, want, gone, drop)
	if err == nil && counted {
		err = x.strikeCounted(want, gone)
	}
	if err != nil {
		return err
	}
	return x.candidates(want)
}

// strikeWalked takes out of want what commits reach that stay and that the index does not count. It reports whether there are others,
// and leaves in gone what no ref names that stays.
func (x *freeing) strikeWalked(ctx context.Context, want map[object.Name]struct{}, gone map[object.Checksum]struct{},
	drop map[string]struct{}) (counted bool, err error) {
	seen, heads := map[object.Checksum]struct{}{}, map[object.Checksum]struct{}{}
	for _, top := range rootDirs {
		err := x.r.walkRefs(top, func(p string, c object.Checksum, err error) error {
			if _, ok := drop[p]; ok || err != nil {
				return err
			}
			for !c.IsZero() {
				delete(gone, c)
				if _, ok := heads[c]; ok {
					return nil
				}
				heads[c] = struct{}{}
				if x.r.knows(c) {
					counted = true
					return nil
				}
				commit, err := (&Objects{x.r}).ReadCommit(c)
				if isMissing(err) {
					return nil
				}
				if err == nil {
					delete(want, object.Name{Checksum: c, Type: object.TypeCommit})
					err = x.r.eachReached(ctx, commit, seen, func(n object.Name) { delete(want, n) })
				}
				if err != nil {
					return err
				}
				c = commit.Parent
			}
			return nil
		})
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

// strikeCounted takes out of want what the index says that more commits reach than those that are gone.
func (x *freeing) strikeCounted(want map[object.Name]struct{}, gone map[object.Checksum]struct{}) error {
	return x.r.withIndex(func(i *index.Index) error {
		keys := make([]index.Key, 0, len(want))
		for n := range want {
			keys = append(keys, index.KeyOf(n.Checksum))
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		counts, err := i.Count(keys)
		if err != nil {
			return err
		}
		for c := range gone {
			own, err := i.Keys(c)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			for _, k := range own {
				if at, ok := slices.BinarySearch(keys, k); ok {
					counts[at]--
				}
			}
		}
		for n := range want {
			if at, _ := slices.BinarySearch(keys, index.KeyOf(n.Checksum)); counts[at] > 0 {
				delete(want, n)
			}
		}
		return nil
	})
}

func (x *freeing) candidates(want map[object.Name]struct{}) error {
	for n := range want {
		var st unix.Stat_t
		err := lstat(int(x.r.objects.Fd()), n.LoosePath(), &st)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return placeError("look for", n.LoosePath(), err)
		}
		x.sum.Objects++
		if n.Type == object.TypeFile {
			x.name(&st).object = true
		} else if st.Nlink == 1 {
			x.sum.Metadata += st.Blocks * 512
		}
	}
	return nil
}

// dir counts a directory that goes with all that is in it.
func (x *freeing) dir(path string) error {
	fd, err := openDir(unix.AT_FDCWD, path)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return x.open(fd)
}

func (x *freeing) open(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("stat", err)
	}
	x.sum.Metadata += st.Blocks * 512
	entries, err := readDir(fd)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			sub, err := openDir(fd, e.Name())
			if err != nil {
				return &os.PathError{Op: "open", Path: e.Name(), Err: err}
			}
			err = x.open(sub)
			unix.Close(sub)
			if err != nil {
				return err
			}
			continue
		}
		var st unix.Stat_t
		if err := lstat(fd, e.Name(), &st); err != nil {
			return &os.PathError{Op: "stat", Path: e.Name(), Err: err}
		}
		x.name(&st)
	}
	return nil
}

// lanes counts the lane files that the directories' lists name: a lane goes when no tree uses it.
func (x *freeing) lanes(dirs []string) error {
	seen := map[string]struct{}{}
	for _, dir := range dirs {
		l, err := mapInodes(dir + "/" + inodesName)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			return err
		}
		for i := range l.filed {
			ino, id := l.lane(i)
			path := id.path()
			if _, ok := seen[path]; ok {
				continue
			}
			seen[path] = struct{}{}
			var st unix.Stat_t
			if x.r.lanes == nil || lstat(int(x.r.lanes.Fd()), path, &st) != nil || st.Ino != ino {
				continue
			}
			if n := x.nodes[ino]; n != nil {
				n.gone++
				n.lane = true
			}
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
