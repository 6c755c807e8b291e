package layers

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// A commitTree is the names, kinds and times of a layer commit, for comparisons. Its file objects are not touched before
// somebody asks: what two layers have in common is told apart by checksums.
type commitTree struct {
	repo *store.Repo
	root *commitNode
}

// A commitNode is an entry of a commitTree.
type commitNode struct {
	name    string // raw
	sum     object.Checksum
	meta    *object.DirMeta // of a directory
	metaSum object.Checksum
	special *special
	empties []string // names of attributes without a value, of what has an object
	mtime   store.Time
	first   uint64 // index of the first name of the same inode
	kind    commitKind
	opaque  bool
	implied bool          // a directory that the layer does not list
	kids    []*commitNode // by the bytes of their names
}

type commitKind uint8

const (
	commitDir      commitKind = iota
	commitFile                // a regular file or a symlink: the object says
	commitSpecial             // it has no object
	commitWhiteout            //
)

// child returns the entry of that name in a directory, or nil.
func (n *commitNode) child(name string) *commitNode {
	i, ok := slices.BinarySearchFunc(n.kids, name, func(k *commitNode, name string) int { return strings.Compare(k.name, name) })
	if !ok {
		return nil
	}
	return n.kids[i]
}

// readCommitTree reads the trees and the metadata of a layer commit.
func readCommitTree(ctx context.Context, r *store.Repo, commit object.Checksum) (*commitTree, error) {
	c, err := r.ReadCommit(commit)
	if err != nil {
		return nil, err
	}
	m, err := readLayerMeta(c)
	if err != nil {
		return nil, fmt.Errorf("read layer commit %s: %w", commit, err)
	}
	l := &commitLoader{repo: r, meta: newMetaReader(m), dirmetas: make(map[object.Checksum]*object.DirMeta)}
	root := &commitNode{kind: commitDir, sum: c.Tree, metaSum: c.Meta}
	l.begin(root)
	if err := l.dir(ctx, root); err != nil {
		return nil, fmt.Errorf("read layer commit %s: %w", commit, err)
	}
	return &commitTree{repo: r, root: root}, nil
}

// A commitLoader reads a commit in tree order. Sizes are passed over: which entries have one is known from their objects only.
type commitLoader struct {
	repo     *store.Repo
	meta     *metaReader
	dirmetas map[object.Checksum]*object.DirMeta
}

// begin goes on to the next entry in tree order, which is n.
func (l *commitLoader) begin(n *commitNode) {
	n.mtime = l.meta.entry()
	if raw, ok := l.meta.rawName(); ok {
		n.name = raw
	}
	n.first = l.meta.index()
	if first, ok := l.meta.link(); ok {
		n.first = first
	}
	n.empties = l.meta.empties()
}

// dir reads the content of the directory that was begun last.
func (l *commitLoader) dir(ctx context.Context, n *commitNode) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.implied = l.meta.directory()
	if n.meta = l.dirmetas[n.metaSum]; n.meta == nil {
		if n.meta, err = l.repo.ReadDirMeta(n.metaSum); err != nil {
			return err
		}
		l.dirmetas[n.metaSum] = n.meta
	}
	t, err := l.repo.ReadDirTree(n.sum)
	if err != nil {
		return err
	}
	n.kids = make([]*commitNode, 0, len(t.Files)+len(t.Dirs))
	l.files(n, t.Files)
	for _, d := range t.Dirs {
		k := &commitNode{name: d.Name, kind: commitDir, sum: d.Tree, metaSum: d.Meta}
		l.begin(k)
		if err := l.dir(ctx, k); err != nil {
			return err
		}
		n.kids = append(n.kids, k)
	}
	if err := l.meta.err(); err != nil {
		return err
	}
	n.sortKids()
	return nil
}

// files reads what is no directory: objects and specials, in the order of their tree names.
func (l *commitLoader) files(n *commitNode, files []object.TreeFile) {
	ordinal := l.meta.ordinal()
	for {
		s := l.meta.special(ordinal)
		if s == nil && len(files) == 0 {
			return
		}
		var k *commitNode
		if s != nil && (len(files) == 0 || s.Name < files[0].Name) {
			k = &commitNode{name: s.Name, kind: commitSpecial, special: s}
			l.meta.take()
		} else {
			k = &commitNode{name: files[0].Name, kind: commitFile, sum: files[0].Checksum}
			files = files[1:]
		}
		l.begin(k)
		if hidden, ok := strings.CutPrefix(k.name, whiteoutPrefix); ok && k.kind == commitFile {
			if k.name == opaqueName {
				n.opaque = true
				continue
			}
			k.name, k.kind = hidden, commitWhiteout
		}
		n.kids = append(n.kids, k)
	}
}

// sortKids brings the entries into the order of their names. A whiteout of a name that the layer has again means nothing.
func (n *commitNode) sortKids() {
	slices.SortFunc(n.kids, func(a, b *commitNode) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.kind) - int(b.kind) // whiteouts last
	})
	n.kids = slices.CompactFunc(n.kids, func(a, b *commitNode) bool { return a.name == b.name })
}

// statNode describes an entry as a checkout of the commit would have it, as far as comparisons of layers need: the type of everything,
// and mode and time of directories. Where no layer lists a directory, the overlay driver has it from the time of extraction, which no other
// directory has.
func (t *commitTree) statNode(n *commitNode, st *unix.Stat_t) error {
	*st = unix.Stat_t{Mtim: unix.Timespec{Sec: n.mtime.Sec, Nsec: int64(n.mtime.Nsec)}}
	switch n.kind {
	case commitDir:
		st.Mode = n.meta.Mode
		if n.implied {
			st.Mtim = unix.Timespec{Sec: math.MinInt64, Nsec: 1}
		}
	case commitWhiteout:
		st.Mode = unix.S_IFCHR
	case commitSpecial:
		st.Mode = n.special.Mode
		st.Rdev = unix.Mkdev(n.special.Major, n.special.Minor)
	case commitFile:
		h, err := t.header(n)
		if err != nil {
			return err
		}
		st.Mode = h.Mode
	}
	return nil
}

// header reads the header of an entry that has an object.
func (t *commitTree) header(n *commitNode) (*object.FileHeader, error) {
	h, f, err := t.repo.OpenFile(n.sum)
	if f != nil {
		f.Close()
	}
	return h, err
}
