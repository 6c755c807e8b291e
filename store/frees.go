package store

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Frees is what removing something would free, in bytes of blocks: those of inodes all of whose names go.
type Frees struct {
	Objects  int64 // how many objects would be deleted
	Data     int64 // of file objects
	Lanes    int64 // of further inodes of file objects
	Private  int64 // of inodes that only the layers have: files of their own, symlinks, devices
	Metadata int64 // of commits, dirtrees, dirmetas, refs and directories
}

// Sum is all bytes.
func (f Frees) Sum() int64 { return f.Data + f.Lanes + f.Private + f.Metadata }

// Frees says of each of the sets of layers, which have places, what removing it alone would free, and changes nothing. It costs
// a stat of each object that can go; where the index does not know a commit that stays, that commit's trees too. What others publish or
// remove meanwhile may or may not count.
func (l *Ledger) Frees(ctx context.Context, sets ...[]int32) ([]Frees, error) {
	x := &freeing{Ledger: l, sets: sets}
	if err := x.prepare(ctx); err != nil {
		return nil, fmt.Errorf("count what goes: %w", err)
	}
	const some = 32
	each := make([]Frees, len(sets))
	_ = onAllCores(1+len(sets)/some, func(c int) error {
		t := x.newTally()
		for i := c * some; i < min((c+1)*some, len(sets)); i++ {
			each[i] = t.sum(sets[i])
		}
		x.idle <- t
		return nil
	})
	return each, nil
}

// A freeing is one question of what goes.
type freeing struct {
	*Ledger
	sets  [][]int32
	all   []int32 // accounts of all sets
	heads []head  // by account
	named []int32 // by object, of commits: how many refs lead to it
	reach []int32 // by object: how many commits reach it
	file  []bool  // by object, which are far from each other: it is a file
	idle  chan *tally
}

// A head is what an account's ref leads to.
type head struct {
	commit int32 // number of the account's commit, if its ref names it, else -1
	bytes  int64 // of the ref's file
	own    bool  // the file is that of this ref alone
}

func (x *freeing) prepare(ctx context.Context) error {
	taken := make([]bool, len(x.book.Accounts))
	for _, set := range x.sets {
		for _, i := range set {
			if !taken[i] {
				taken[i] = true
				x.all = append(x.all, i)
			}
		}
	}
	x.compare(x.all, true)
	for range maxAgain { // after which somebody changes what we look at
		if err := x.look(ctx, x.all); err != nil {
			return err
		}
		if err := x.count(ctx); err != nil { // which takes as long as the others do to look ahead
			return err
		}
		right, err := x.confirm(x.all)
		if err != nil {
			return err
		}
		if right {
			break
		}
	}
	x.file = make([]bool, len(x.book.Objects))
	for n := range x.file {
		x.file[n] = x.book.Objects[n].Name.Type == object.TypeFile
	}
	x.findOthers(x.all) // of those that are not right after all
	x.idle = make(chan *tally, runtime.GOMAXPROCS(0)+1)
	return x.findUnreached()
}

// findUnreached finds all objects that can go. No set frees what all together do not.
func (x *freeing) findUnreached() error {
	if !slices.ContainsFunc(x.found, func(f foundFile) bool { return !f.asked }) {
		return nil
	}
	t := x.newTally()
	numbers, _ := t.unreached(x.all)
	x.idle <- t
	return x.find(slices.DeleteFunc(slices.Clone(numbers), func(n int32) bool { return x.found[n].asked }))
}

// A tally counts the names of inodes that go with one set after the other. An inode's number is that of the object whose own file it is, or
// comes after them all.
type tally struct {
	*freeing
	round                int32   // of questions
	lessNamed, lessReach []int32 // what goes in one question; zero between two
	going, reached, out  []int32 // of one question: accounts whose commits go, objects that these reach, those of them that go

	gone     []int32 // by inode: how many of its names go in this round
	met      []int32 // inodes that have names that go
	laneDone []int32 // by inode: the round in which the lane file was counted
}

func (x *freeing) newTally() *tally {
	select {
	case t := <-x.idle:
		return t
	default:
	}
	objects, inodes := len(x.book.Objects), len(x.book.Objects)+len(x.nodes)
	return &tally{
		freeing: x, lessNamed: make([]int32, objects), lessReach: make([]int32, objects),
		gone: make([]int32, inodes), laneDone: make([]int32, inodes),
	}
}

// unreached returns the objects that nothing reaches any more once the layers are gone, and those of them whose commits go.
func (x *tally) unreached(set []int32) (out, going []int32) {
	x.round++
	x.going, x.reached, x.out = x.going[:0], x.reached[:0], x.out[:0]
	for _, i := range set {
		if c := x.heads[i].commit; c >= 0 {
			if x.lessNamed[c]++; x.lessNamed[c] == x.named[c] {
				x.going = append(x.going, i)
			}
		}
	}
	for _, i := range x.going {
		for _, u := range x.book.Accounts[i].Uses {
			if x.lessReach[u.Object]++; x.lessReach[u.Object] == 1 {
				x.reached = append(x.reached, u.Object)
			}
		}
	}
	for _, n := range x.reached {
		if x.reach[n] <= x.lessReach[n] {
			x.out = append(x.out, n)
		}
		x.lessReach[n] = 0
	}
	for _, i := range set {
		if c := x.heads[i].commit; c >= 0 {
			x.lessNamed[c] = 0
		}
	}
	return x.out, x.going
}

// name counts names of an inode that go.
func (x *tally) name(n, names int32) {
	if names == 0 {
		return
	}
	if x.gone[n] == 0 {
		x.met = append(x.met, n)
	}
	x.gone[n] += names
}

// sum counts what goes with one set.
func (x *tally) sum(set []int32) Frees {
	var sum Frees
	objects, going := x.unreached(set)
	for _, i := range going {
		if !x.heads[i].own {
			sum.Metadata += x.heads[i].bytes
		}
	}
	for _, n := range objects {
		switch f := &x.found[n]; {
		case f.links == 0: // it is not there
		case x.file[n]:
			sum.Objects++
			x.name(n, 1)
		default:
			sum.Objects++
			if f.links == 1 {
				sum.Metadata += f.bytes
			}
		}
	}
	for _, i := range set {
		a := &x.book.Accounts[i]
		if x.heads[i].own {
			sum.Metadata += x.heads[i].bytes
		}
		sum.Metadata += a.Dirs
		sum.Private += a.Own
		for _, u := range a.Uses {
			x.name(u.Object, u.Names)
		}
		x.nameOthers(i, a.Others)
	}
	x.goneInodes(&sum)
	return sum
}

// nameOthers counts the names of an account's other inodes.
func (x *tally) nameOthers(i int32, others []otherInode) {
	for k := range others {
		n := x.others[i][k]
		if n < 0 {
			x.name(-1-n, others[k].Names)
			continue
		}
		at := int32(len(x.found)) + n
		x.name(at, others[k].Names)
		if others[k].Lane != "" && x.nodes[n].lane && x.laneDone[at] != x.round { // several lists name it, and it is one name
			x.laneDone[at] = x.round
			x.name(at, 1)
		}
	}
}

// goneInodes sums up the inodes that have no name left.
func (x *tally) goneInodes(sum *Frees) {
	objects := int32(len(x.found))
	for _, n := range x.met {
		gone := x.gone[n]
		x.gone[n] = 0
		if n < objects {
			if f := &x.found[n]; f.links == gone {
				sum.Data += f.bytes
			}
			continue
		}
		switch o := &x.nodes[n-objects]; {
		case o.links != gone:
		case o.lane:
			sum.Lanes += o.bytes
		default:
			sum.Private += o.bytes
		}
	}
	x.met = x.met[:0]
}
