package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	all := joined(sets)
	err := x.prepare(ctx, all)
	if err == nil { // no set frees what all together do not
		objects, _ := x.unreached(all.Refs)
		err = x.lookAtObjects(objects)
	}
	if err == nil {
		err = x.lookAtDirs(all.Dirs)
	}
	if err != nil {
		return nil, fmt.Errorf("count what goes: %w", err)
	}
	each := make([]Frees, len(sets))
	for i, g := range sets {
		each[i] = x.tally(g)
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
	of    []int32 // the inode of an object that goes, by the object's number: noInode if it is not there

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

const noInode = -1

func newFreeing(r *root) *freeing {
	return &freeing{reachCounts: newReachCounts(r), dirs: map[string]*goingDir{}, inos: map[uint64]int32{}}
}

// node is the number of an inode.
func (x *freeing) node(f seenInode) int32 {
	n, ok := x.inos[f.ino]
	if !ok {
		n = int32(len(x.nodes))
		x.inos[f.ino] = n
		x.nodes = append(x.nodes, inodeNames{links: f.links, bytes: f.bytes})
		x.gone, x.rounds, x.lanes = append(x.gone, 0), append(x.rounds, 0), append(x.lanes, 0)
	}
	return n
}

// tally counts what goes with one set.
func (x *freeing) tally(g Going) Frees {
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
		x.object(i, &sum, name)
	}
	for _, path := range g.Dirs {
		d := x.dirs[path]
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
	return sum
}

// object counts an object that goes.
func (x *freeing) object(i int32, sum *Frees, name func(int32)) {
	n := x.of[i]
	if n == noInode {
		return
	}
	sum.Objects++
	if x.names[i].Type == object.TypeFile {
		name(n)
	} else if x.nodes[n].links == 1 {
		sum.Metadata += x.nodes[n].bytes
	}
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
