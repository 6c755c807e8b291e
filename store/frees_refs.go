package store

import (
	"context"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/ledger"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// otherInode is package ledger's, for short.
type otherInode = ledger.Other

// A refCount says what refs lead to. Commits that the index counts are asked of it; all others, those of others and all where the index is
// gone, are walked.
type refCount struct {
	*freeing
	odd     map[string]int32                    // accounts by ref, where that is not called as the layer is
	asked   []bool                              // accounts
	commits []bool                              // by object: it is the commit of an account that was asked for
	counted []bool                              // by object, of these: a counted ref leads to it, or the index has its list
	parents map[object.Checksum]object.Checksum // of commits that are not counted and are there
	others  map[object.Checksum]bool            // commits besides that refs lead to, and whether the index has their lists
}

// count finds out what the accounts' refs are, how many refs lead to their commits, and how many commits reach the objects.
func (x *freeing) count(ctx context.Context) error {
	x.heads = make([]head, len(x.book.Accounts))
	x.named, x.reach = make([]int32, len(x.book.Objects)), make([]int32, len(x.book.Objects))
	c := &refCount{
		freeing: x, odd: map[string]int32{}, asked: make([]bool, len(x.book.Accounts)), commits: make([]bool, len(x.named)),
		counted: make([]bool, len(x.named)), parents: map[object.Checksum]object.Checksum{}, others: map[object.Checksum]bool{},
	}
	some := false
	for _, i := range x.all {
		a := &x.book.Accounts[i]
		x.heads[i].commit = ledger.NoCommit
		if a.Commit == ledger.NoCommit {
			continue
		}
		c.commits[a.Commit], c.asked[i], some = true, true, true
		if ref := x.layers.Ref(a.ID); ref[len(layerRefs):] != a.ID {
			c.odd[ref[len(layerRefs):]] = i
		}
	}
	if !some {
		return nil
	}
	known := map[string]object.Checksum{}
	if c.r.local() {
		rest, listed, err := c.layerRefs()
		if err == nil && listed {
			known[layerRefsDir] = object.Checksum{}
			err = c.readRefs(rest)
		}
		if err != nil {
			return err
		}
	}
	for _, top := range rootDirs {
		if err := x.r.walkRefs(top, known, c.ref); err != nil {
			return err
		}
	}
	if err := c.walkOthers(ctx); err != nil {
		return err
	}
	return c.ask()
}

// layerRefs leads the refs of layers whose commits are known without a look into them, and returns the names of the others. It is
// true to the directory unless that is changed meanwhile. Where there is no index nothing is listed.
func (c *refCount) layerRefs() (rest []string, listed bool, err error) {
	if c.r.sealed() {
		rest, err = c.sealedRefs()
		if err != nil || len(rest) < fewRefs {
			return rest, true, err
		}
	}
	counted, names, err := c.r.countedRefs(layerRefsDir)
	if err != nil {
		return rest, rest != nil, nil
	}
	if rest == nil {
		rest = names
		for name := range counted {
			rest = append(rest, name)
		}
	}
	return slices.DeleteFunc(rest, func(name string) bool {
		commit, ok := counted[name]
		if ok {
			c.leads(name, commit)
		}
		return ok
	}), true, nil
}

// sealedRefs leads the accounts' refs, when all files in the layers' directory are counted refs. It returns the other names.
func (c *refCount) sealedRefs() (rest []string, err error) {
	fd, err := openDir(c.r.fd(), layerRefsDir)
	if err != nil {
		return nil, &os.PathError{Op: "list refs", Path: layerRefsDir, Err: err}
	}
	defer unix.Close(fd)
	err = index.EachEntry(fd, nil, func(name string, ino uint64, kind uint8) error {
		i := c.account(name)
		if i == NoPlace || c.book.Accounts[i].Ref != ino || kind != unix.DT_REG {
			rest = append(rest, name)
			return nil
		}
		a := &c.book.Accounts[i]
		c.named[a.Commit]++
		c.counted[a.Commit] = true
		c.heads[i] = head{commit: a.Commit, bytes: a.RefBytes}
		return nil
	})
	return rest, err
}

// fewRefs is up to how many refs are read one by one, when the index has the commits of all.
const fewRefs = 256

// account is that of the layer whose ref has a name in the layers' directory, if it was asked for.
func (c *refCount) account(name string) int32 {
	i, ok := c.odd[name]
	if !ok {
		i, ok = c.book.Account(name)
	}
	if !ok || !c.asked[i] || len(c.odd) > 0 && c.layers.Ref(c.book.Accounts[i].ID) != layerRefs+name {
		return NoPlace
	}
	return i
}

// leads counts a counted ref. Those to commits that no account has make no difference: the index has what they reach.
func (c *refCount) leads(name string, commit object.Checksum) {
	n, ok := c.book.Find(object.Name{Checksum: commit, Type: object.TypeCommit})
	if !ok || !c.commits[n] {
		return
	}
	c.named[n]++
	c.counted[n] = true
	i := c.account(name)
	if i == NoPlace || c.book.Accounts[i].Commit != n {
		return
	}
	c.heads[i] = head{commit: n, bytes: c.book.Accounts[i].RefBytes}
	var st unix.Stat_t
	if c.book.Accounts[i].Ref == 0 && lstat(c.r.fd(), layerRefsDir+"/"+name, &st) == nil {
		c.heads[i].bytes = st.Blocks * 512
	}
}

// readRefs reads the refs in the layers' directory that are left.
func (c *refCount) readRefs(names []string) error {
	for _, name := range names {
		var st unix.Stat_t
		p := layerRefsDir + "/" + name
		if !isFragment(name) || lstat(c.r.fd(), p, &st) != nil {
			continue
		}
		read := c.r.visitRef
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			read = c.r.walkRefs
		}
		if err := read(p, nil, c.ref); err != nil {
			return err
		}
	}
	return nil
}

// ref counts a ref that leads to a commit and its ancestors.
func (c *refCount) ref(p string, commit object.Checksum, err error) error {
	if err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(p, layerRefsDir+"/"); ok {
		c.refOwn(p, c.account(name), commit)
	}
	for ; !commit.IsZero(); commit = c.parents[commit] {
		counted := c.isCounted(commit)
		if n, ok := c.book.Find(object.Name{Checksum: commit, Type: object.TypeCommit}); ok && c.commits[n] {
			c.named[n]++
			c.counted[n] = counted
		} else {
			c.others[commit] = counted
		}
		if counted {
			return nil // it has no parent
		}
		if _, ok := c.parents[commit]; ok {
			continue
		}
		read, err := (&Objects{c.r}).ReadCommit(commit)
		if isMissing(err) {
			return nil
		}
		if err != nil {
			return err
		}
		c.parents[commit] = read.Parent
	}
	return nil
}

// refOwn notes the file of an account's ref, which is not a counted one as far as we know.
func (c *refCount) refOwn(p string, i int32, commit object.Checksum) {
	var st unix.Stat_t
	if i == NoPlace || c.book.CommitOf(&c.book.Accounts[i]) != commit || lstat(c.r.fd(), p, &st) != nil {
		return
	}
	c.heads[i] = head{commit: c.book.Accounts[i].Commit, own: true}
	if st.Nlink == 1 {
		c.heads[i].bytes = st.Blocks * 512
	}
}

func (c *refCount) isCounted(commit object.Checksum) bool {
	if is, ok := c.others[commit]; ok {
		return is
	}
	return c.r.knows(commit)
}

// walkOthers counts what commits reach that refs lead to and the index does not count.
func (c *refCount) walkOthers(ctx context.Context) error {
	for _, i := range c.all {
		a := &c.book.Accounts[i]
		if n := a.Commit; n != ledger.NoCommit && c.commits[n] && c.named[n] > 0 && !c.counted[n] {
			c.commits[n] = false // it may have several layers
			for _, u := range a.Uses {
				c.reach[u.Object]++
			}
		}
	}
	for commit, counted := range c.others {
		if counted {
			continue
		}
		read, err := (&Objects{c.r}).ReadCommit(commit)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return err
		}
		seen := map[int32]struct{}{}
		add := func(n object.Name) {
			if i, ok := c.book.Find(n); ok {
				seen[i] = struct{}{}
			}
		}
		add(object.Name{Checksum: commit, Type: object.TypeCommit})
		if err := c.r.eachReached(ctx, read, map[object.Checksum]struct{}{}, add); err != nil {
			return err
		}
		for i := range seen {
			c.reach[i]++
		}
	}
	return nil
}

// ask asks the index once for all objects of the accounts. Where it cannot be read it counts nothing.
func (c *refCount) ask() error {
	asked := make([]bool, len(c.book.Objects))
	for _, i := range c.all {
		for _, u := range c.book.Accounts[i].Uses {
			asked[u.Object] = true
		}
	}
	keys := make([]index.Key, 0, len(asked))
	var numbers []int32
	for _, n := range c.book.ByName() {
		if !asked[n] {
			continue
		}
		numbers = append(numbers, n)
		if k := index.KeyOf(c.book.Objects[n].Name.Checksum); len(keys) == 0 || keys[len(keys)-1] != k {
			keys = append(keys, k)
		}
	}
	return c.r.withIndex(func(x *index.Index) error {
		counts, err := x.Count(keys)
		if err != nil {
			return err
		}
		at := 0
		for _, n := range numbers {
			for k := index.KeyOf(c.book.Objects[n].Name.Checksum); keys[at] != k; {
				at++
			}
			c.reach[n] += counts[at]
		}
		return nil
	})
}
