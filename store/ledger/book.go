// Package ledger keeps what layers take: which objects their commits reach, how many names their trees give to which inodes, and what
// else is theirs, so that du has nothing to look at but what may have changed without notice. It is derived, may be deleted at any
// time, and says nothing that its reader does not compare with what it describes (docs/format.md, "Ledger").
//
// This package is the file and what is in it: pure, without I/O.
package ledger

import (
	"slices"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Book is a ledger in memory. Objects have numbers, their places in it.
type Book struct {
	Objects  []Object
	Accounts []Account

	sorted int // so many objects, the first, are sorted by name
	fresh  map[object.Name]int32
	byID   map[string]int32
	next   int32 // the account after the one that was asked for last
}

// An Object is what does not change while an object is there.
type Object struct {
	Name object.Name
	Size int64  // of a regular file, NoSize of all else
	Ino  uint64 // of the object's own file, when trees that have it were looked at; 0 is not known
}

// NoCommit is the commit of a layer without one.
const NoCommit = -1

// NoSize is the size of what is no regular file.
const NoSize = -1

// An Account is what one layer takes.
type Account struct {
	ID        string
	Commit    int32   // number of its commit, NoCommit if it has none; such accounts are not for the file
	Dir, Diff Stamp   // the layer's directory and the upper directory in it, which is empty
	Ref       uint64  // inode of the file that the commit's refs are; 0 is not known
	RefBytes  int64   // blocks of that file
	Dirs      int64   // blocks of the layer's directory and of all directories below
	Own       int64   // blocks of the few files beside its tree
	Uses      []Use   // what the commit reaches, itself included, by number
	Others    []Other // the inodes of the tree that are no object's own file
}

// A Stamp tells a directory from others and from itself after a change of its entries.
type Stamp struct {
	Ino  uint64
	Sec  int64
	Nsec uint32
}

// A Use is an object, and how many names its own file has in the tree.
type Use struct{ Object, Names int32 }

// An Other is an inode of a tree that is no object's own file: a lane's, or the layer's own.
type Other struct {
	Ino   uint64
	Names int32
	Path  string // one of them, below the layer's directory
	Lane  string // the lane file that the layer's inode list names, "" for none
}

// New returns an empty book.
func New() *Book { return &Book{fresh: map[object.Name]int32{}, byID: map[string]int32{}} }

// Account returns the place of a layer's account. Those who ask for many do so in the order in which they are.
func (b *Book) Account(id string) (int32, bool) {
	i, ok := b.next, true
	if int(i) >= len(b.Accounts) || b.Accounts[i].ID != id {
		if i, ok = b.byID[id]; !ok {
			return 0, false
		}
	}
	b.next = i + 1
	return i, true
}

// Put adds an account, or replaces that of the same layer, and returns its place.
func (b *Book) Put(a Account) int32 {
	i, ok := b.byID[a.ID]
	if !ok {
		i = int32(len(b.Accounts))
		b.byID[a.ID] = i
		b.Accounts = append(b.Accounts, Account{})
	}
	b.Accounts[i] = a
	return i
}

// Find returns the number of an object, if it has one.
func (b *Book) Find(n object.Name) (int32, bool) {
	if i, ok := b.fresh[n]; ok {
		return i, true
	}
	i, ok := slices.BinarySearchFunc(b.Objects[:b.sorted], n, func(o Object, n object.Name) int { return o.Name.Compare(n) })
	return int32(i), ok
}

// CommitOf is the checksum of an account's commit, zero if it has none.
func (b *Book) CommitOf(a *Account) object.Checksum {
	if a.Commit == NoCommit {
		return object.Checksum{}
	}
	return b.Objects[a.Commit].Name.Checksum
}

// Number returns the number of an object, which it gets if it has none.
func (b *Book) Number(n object.Name) int32 {
	i, ok := b.Find(n)
	if !ok {
		i = int32(len(b.Objects))
		b.fresh[n] = i
		b.Objects = append(b.Objects, Object{Name: n, Size: NoSize})
	}
	return i
}

// ByName returns all numbers in the order of the objects' names.
func (b *Book) ByName() []int32 {
	tail := make([]int32, 0, len(b.Objects)-b.sorted)
	for i := b.sorted; i < len(b.Objects); i++ {
		tail = append(tail, int32(i))
	}
	slices.SortFunc(tail, func(x, y int32) int { return b.Objects[x].Name.Compare(b.Objects[y].Name) })
	all := make([]int32, 0, len(b.Objects))
	for i := range int32(b.sorted) {
		for len(tail) > 0 && b.Objects[tail[0]].Name.Compare(b.Objects[i].Name) < 0 {
			all, tail = append(all, tail[0]), tail[1:]
		}
		all = append(all, i)
	}
	return append(all, tail...)
}

// Sorted is how many objects, the first, are in the order of their names.
func (b *Book) Sorted() int { return b.sorted }
