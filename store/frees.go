package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

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

// Frees says of each of the sets what removing it alone would free, and changes nothing. It costs what the sets hold, in stats and reads
// of trees, what they have in common once; where the index does not know a commit that stays, that commit's trees too. What others
// publish or remove meanwhile may or may not count.
func (r *Repo) Frees(ctx context.Context, sets ...Going) ([]Frees, error) {
	x := newFreeing(r.root)
	if err := x.prepare(ctx, joined(sets)); err != nil {
		return nil, fmt.Errorf("count what goes: %w", err)
	}
	each := make([]Frees, len(sets))
	for i, g := range sets {
		var err error
		if each[i], err = x.tally(g); err != nil {
			return nil, fmt.Errorf("count what goes: %w", err)
		}
	}
	return each, nil
}

// joined is all sets as one, each name once.
func joined(sets []Going) Going {
	var all Going
	seen := map[string]struct{}{}
	once := func(out, names []string) []string {
		for _, name := range names {
			if _, ok := seen[name]; !ok {
				seen[name] = struct{}{}
				out = append(out, name)
			}
		}
		return out
	}
	for _, g := range sets {
		all.Refs, all.Dirs = once(all.Refs, g.Refs), once(all.Dirs, g.Dirs)
	}
	return all
}

// A freeing counts the names of inodes that go. Objects and inodes have numbers, in the order in which they are met.
type freeing struct {
	*reachCounts
	dirs  map[string]*goingDir
	inos  map[uint64]int32
	nodes []inodeNames
	of    []int32 // the inode of an object, by the object's number: noInode if it is not there, unlooked before anybody asked

	round  int32   // of tally
	gone   []int32 // how many names of an inode go in this round
	rounds []int32 // the round that gone was last counted in
	lanes  []int32 // the round in which the inode's lane file was counted
}

// An inodeNames is what there is to know of an inode.
type inodeNames struct {
	links  int32
	object bool
	lane   bool
	bytes  int64
}

// A goingDir is what is in a directory: its own blocks and those below it, the inodes by name, and those that have a lane file.
type goingDir struct {
	bytes         int64
	inodes, filed []int32
}

const (
	unlooked = -1
	noInode  = -2
)

func newFreeing(r *root) *freeing {
	return &freeing{reachCounts: newReachCounts(r), dirs: map[string]*goingDir{}, inos: map[uint64]int32{}}
}

// node is the number of an inode.
func (x *freeing) node(st *unix.Stat_t) int32 {
	n, ok := x.inos[st.Ino]
	if !ok {
		n = int32(len(x.nodes))
		x.inos[st.Ino] = n
		x.nodes = append(x.nodes, inodeNames{links: int32(st.Nlink), bytes: st.Blocks * 512})
		x.gone, x.rounds, x.lanes = append(x.gone, 0), append(x.rounds, 0), append(x.lanes, 0)
	}
	return n
}

// tally counts what goes with one set.
func (x *freeing) tally(g Going) (Frees, error) {
	var sum Frees
	var met []int32
	x.round++
	name := func(n int32) {
		if x.rounds[n] != x.round {
			x.rounds[n], x.gone[n] = x.round, 0
			met = append(met, n)
		}
		x.gone[n]++
	}
	for _, ref := range g.Refs {
		sum.Metadata += x.refBytes[headsDir+"/"+ref]
	}
	objects, commits := x.unreached(g.Refs)
	for _, c := range commits {
		sum.Metadata += x.fileOf[c]
	}
	for _, i := range objects {
		if err := x.object(i, &sum, name); err != nil {
			return sum, err
		}
	}
	for _, path := range g.Dirs {
		d, err := x.dir(path)
		if err != nil {
			return sum, err
		}
		sum.Metadata += d.bytes
		for _, n := range d.inodes {
			name(n)
		}
		for _, n := range d.filed {
			if x.lanes[n] != x.round { // several lists name it, and it is one name
				x.lanes[n] = x.round
				name(n)
			}
		}
	}
	for _, n := range met {
		node := &x.nodes[n]
		switch {
		case node.links != x.gone[n]:
		case node.object:
			sum.Data += node.bytes
		case node.lane:
			sum.Lanes += node.bytes
		default:
			sum.Private += node.bytes
		}
	}
	return sum, nil
}

// object counts an object that goes.
func (x *freeing) object(i int32, sum *Frees, name func(int32)) error {
	for len(x.of) <= int(i) {
		x.of = append(x.of, unlooked)
	}
	o := x.names[i]
	if x.of[i] == unlooked {
		var st unix.Stat_t
		err := lstat(int(x.r.objects.Fd()), o.LoosePath(), &st)
		switch {
		case err == unix.ENOENT:
			x.of[i] = noInode
		case err != nil:
			return placeError("look for", o.LoosePath(), err)
		default:
			x.of[i] = x.node(&st)
			x.nodes[x.of[i]].object = o.Type == object.TypeFile
		}
	}
	n := x.of[i]
	if n == noInode {
		return nil
	}
	sum.Objects++
	if o.Type == object.TypeFile {
		name(n)
	} else if x.nodes[n].links == 1 {
		sum.Metadata += x.nodes[n].bytes
	}
	return nil
}

// dir looks at a directory that goes, with all that is in it.
func (x *freeing) dir(path string) (*goingDir, error) {
	if d := x.dirs[path]; d != nil {
		return d, nil
	}
	d := &goingDir{}
	x.dirs[path] = d
	fd, err := openDir(unix.AT_FDCWD, path)
	if err == unix.ENOENT {
		return d, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := x.open(d, fd); err != nil {
		return nil, err
	}
	return d, x.listed(d, path)
}

func (x *freeing) open(d *goingDir, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("stat", err)
	}
	d.bytes += st.Blocks * 512
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
			err = x.open(d, sub)
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
		d.inodes = append(d.inodes, x.node(&st))
	}
	return nil
}

// listed looks at the lane files that a directory's list names: a lane goes when no tree uses it.
func (x *freeing) listed(d *goingDir, path string) error {
	l, err := mapInodes(path + "/" + inodesName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStale) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range l.filed {
		ino, id := l.lane(i)
		n, ok := x.inos[ino]
		var st unix.Stat_t
		if !ok || x.r.lanes == nil || lstat(int(x.r.lanes.Fd()), id.path(), &st) != nil || st.Ino != ino {
			continue
		}
		x.nodes[n].lane = true
		d.filed = append(d.filed, n)
	}
	return l.Close()
}
