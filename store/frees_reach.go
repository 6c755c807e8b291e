package store

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// reachCounts say how many commits reach each object that may go, and what is left when some refs go. Commits that the index counts are
// asked of it; all others, those of others and all where the index is gone, are walked.
type reachCounts struct {
	r        *root
	refs     map[string]object.Checksum          // by path, in the repository
	refBytes map[string]int64                    // of refs whose file goes with them
	fileOf   map[object.Checksum]int64           // the bytes of the file of counted refs, which goes with the commit
	known    map[object.Checksum]struct{}        // commits that the index counts
	named    map[object.Checksum]int32           // how many refs lead to a commit, ancestors too
	parents  map[object.Checksum]object.Checksum // of commits that are not counted and are there
	reached  map[object.Checksum][]int32         // objects that a commit reaches, for those that may go and those that are walked

	names  []object.Name // by number
	number map[object.Name]int32
	keys   []index.Key // sorted
	key    []int32     // an object's place among the keys
	counts []int32     // by key: how many counted commits reach it
	walked []int32     // by object: how many other commits reach it

	lessCounts, lessWalked []int32 // what goes in one question; zero between two
	turn                   int32   // of questions
	turns                  []int32 // by object: the question in which it was last met
}

func newReachCounts(r *root) *reachCounts {
	return &reachCounts{
		r: r, refs: map[string]object.Checksum{}, refBytes: map[string]int64{}, known: map[object.Checksum]struct{}{},
		named: map[object.Checksum]int32{}, parents: map[object.Checksum]object.Checksum{}, reached: map[object.Checksum][]int32{},
		number: map[object.Name]int32{}, fileOf: map[object.Checksum]int64{},
	}
}

// prepare reads the refs, and counts for all objects that can go with g.
func (x *reachCounts) prepare(ctx context.Context, g Going) error {
	if len(g.Refs) == 0 {
		return nil
	}
	_ = x.r.withIndex(func(i *index.Index) error { // where it cannot be read, it counts nothing
		list, err := i.Commits()
		for _, c := range list {
			x.known[c] = struct{}{}
		}
		return err
	})
	counted := x.r.countedPaths()
	for _, top := range rootDirs {
		err := x.r.walkRefs(top, counted, func(p string, c object.Checksum, err error) error {
			if err != nil {
				return err
			}
			x.refs[p] = c
			return x.lead(c)
		})
		if err != nil {
			return err
		}
	}
	for _, ref := range g.Refs {
		p := headsDir + "/" + ref
		var st unix.Stat_t
		if lstat(x.r.fd(), p, &st) != nil {
			continue
		}
		if c, ok := counted[p]; ok {
			x.fileOf[c] = st.Blocks * 512
		} else if st.Nlink == 1 {
			x.refBytes[p] = st.Blocks * 512
		}
	}
	direct, _ := x.going(g.Refs)
	if err := x.readAll(ctx, direct); err != nil {
		return err
	}
	x.walked = make([]int32, len(x.names))
	if err := x.walkOthers(ctx); err != nil {
		return err
	}
	return x.ask()
}

// lead counts a ref that leads to a commit and its ancestors.
func (x *reachCounts) lead(c object.Checksum) error {
	for !c.IsZero() {
		x.named[c]++
		if _, ok := x.known[c]; ok {
			return nil // it has no parent
		}
		next, ok := x.parents[c]
		if !ok {
			commit, err := (&Objects{x.r}).ReadCommit(c)
			if isMissing(err) {
				return nil
			}
			if err != nil {
				return err
			}
			next = commit.Parent
			x.parents[c] = next
		}
		c = next
	}
	return nil
}

// going returns the commits that refs name and nothing else does once they are gone, and with them those that only they led to.
func (x *reachCounts) going(refs []string) (direct, all []object.Checksum) {
	less := map[object.Checksum]int32{}
	heads := map[object.Checksum]struct{}{}
	for _, ref := range refs {
		c, ok := x.refs[headsDir+"/"+ref]
		if !ok {
			continue
		}
		heads[c] = struct{}{}
		for !c.IsZero() {
			if less[c]++; less[c] == x.named[c] {
				all = append(all, c)
			}
			c = x.parents[c]
		}
	}
	for _, c := range all {
		if _, ok := heads[c]; ok {
			direct = append(direct, c)
		}
	}
	return direct, all
}

// readAll numbers all that the commits reach, themselves included.
func (x *reachCounts) readAll(ctx context.Context, commits []object.Checksum) error {
	var last []int32 // the last commit, from 1, that was met with an object, by number
	for done := 0; done < len(commits); done += chunk {
		some := commits[done:min(done+chunk, len(commits))]
		reached := make([][]object.Name, len(some))
		err := onAllCores(len(some), func(i int) error {
			commit, err := (&Objects{x.r}).ReadCommit(some[i])
			if err != nil {
				return err
			}
			list := []object.Name{{Checksum: some[i], Type: object.TypeCommit}}
			err = x.r.eachReached(ctx, commit, map[object.Checksum]struct{}{}, func(n object.Name) { list = append(list, n) })
			reached[i] = list
			return err
		})
		if err != nil {
			return err
		}
		for i, c := range some {
			list := make([]int32, 0, len(reached[i]))
			for _, name := range reached[i] {
				n, ok := x.number[name]
				if !ok {
					n = int32(len(x.names))
					x.names, last = append(x.names, name), append(last, 0)
					x.number[name] = n
				}
				if at := int32(done + i + 1); last[n] != at {
					last[n] = at
					list = append(list, n)
				}
			}
			x.reached[c] = list
		}
	}
	return nil
}

// walkOthers counts what commits reach that refs lead to and the index does not count, of the objects that have a number by now.
func (x *reachCounts) walkOthers(ctx context.Context) error {
	for c := range x.parents {
		if x.named[c] == 0 {
			continue
		}
		list, ok := x.reached[c]
		if !ok {
			commit, err := (&Objects{x.r}).ReadCommit(c)
			if err != nil {
				return err
			}
			seen := map[int32]struct{}{}
			add := func(n object.Name) {
				if i, ok := x.number[n]; ok {
					seen[i] = struct{}{}
				}
			}
			add(object.Name{Checksum: c, Type: object.TypeCommit})
			if err := x.r.eachReached(ctx, commit, map[object.Checksum]struct{}{}, add); err != nil {
				return err
			}
			for i := range seen {
				list = append(list, i)
			}
			x.reached[c] = list
		}
		for _, i := range list {
			x.walked[i]++
		}
	}
	x.lessWalked, x.turns = make([]int32, len(x.names)), make([]int32, len(x.names))
	return nil
}

// ask asks the index once for all objects.
func (x *reachCounts) ask() error {
	x.keys = make([]index.Key, len(x.names))
	for i, n := range x.names {
		x.keys[i] = index.KeyOf(n.Checksum)
	}
	slices.Sort(x.keys)
	x.keys = slices.Compact(x.keys)
	x.key = make([]int32, len(x.names))
	for i, n := range x.names {
		at, _ := slices.BinarySearch(x.keys, index.KeyOf(n.Checksum))
		x.key[i] = int32(at)
	}
	x.counts, x.lessCounts = make([]int32, len(x.keys)), make([]int32, len(x.keys))
	if len(x.known) == 0 {
		return nil
	}
	return x.r.withIndex(func(i *index.Index) (err error) {
		x.counts, err = i.Count(x.keys)
		return err
	})
}

// unreached returns the objects that nothing reaches any more once the refs are gone, and the commits that they named.
func (x *reachCounts) unreached(refs []string) (out []int32, commits []object.Checksum) {
	direct, all := x.going(refs)
	x.less(all, +1)
	defer x.less(all, -1)
	x.turn++
	for _, c := range direct {
		for _, i := range x.reached[c] {
			if x.turns[i] == x.turn {
				continue
			}
			x.turns[i] = x.turn
			if x.counts[x.key[i]] <= x.lessCounts[x.key[i]] && x.walked[i] <= x.lessWalked[i] {
				out = append(out, i)
			}
		}
	}
	return out, direct
}

// less takes what commits reach off the counts, or puts it back.
func (x *reachCounts) less(commits []object.Checksum, step int32) {
	for _, c := range commits {
		_, counted := x.known[c]
		for _, i := range x.reached[c] {
			if counted {
				x.lessCounts[x.key[i]] += step
			} else {
				x.lessWalked[i] += step
			}
		}
	}
}
