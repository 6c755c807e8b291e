package layers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// ChangesBetween compares the merged trees of two chains of layers, nearest first, which need have nothing in common; with old empty,
// all is new. It reads commits, no checkouts: what both chains have from the same layers is not looked at.
//
// The list is that of NaiveChanges for mounts of the chains, in the same order, and more: a change of content, or of any
// attribute, is seen also where size and time are the same. The error matches ErrUnsupported if a layer was written
// through a mount: then only mounts can be compared.
func ChangesBetween(ctx context.Context, newChain, oldChain []*Layer, o NaiveOptions) ([]Change, error) {
	b := newBetweenWalk(o)
	err := b.run(ctx, newChain, oldChain)
	return b.changes, err
}

// SizeBetween returns the bytes in the files that ChangesBetween lists as added or modified, hardlinks once.
func SizeBetween(ctx context.Context, newChain, oldChain []*Layer, o NaiveOptions) (int64, error) {
	b := newBetweenWalk(o)
	b.counted = make(map[mergedInode]bool)
	err := b.run(ctx, newChain, oldChain)
	return b.size, err
}

// A mergedAt is an entry of one layer of a chain.
type mergedAt struct {
	tree *commitTree
	node *commitNode
}

// A mergedEntry is an entry of a merged tree: what the nearest layer has, and of a directory also what it is merged with.
type mergedEntry struct {
	mergedAt
	dirs []mergedAt // nearest first; nil if it is no directory
}

// mergedInode names an inode of a merged tree.
type mergedInode struct {
	tree  *commitTree
	first uint64
}

// A betweenWalk goes through two merged trees side by side.
type betweenWalk struct {
	newIDs, oldIDs idMaps
	sameIDs        bool
	trees          map[object.Checksum]*commitTree // by commit: what both chains have is the same tree in memory
	changes        []Change
	path           []byte
	counted        map[mergedInode]bool // not nil if sizes are wanted
	size           int64
}

func newBetweenWalk(o NaiveOptions) *betweenWalk {
	return &betweenWalk{
		newIDs:  idMaps{uids: o.NewUIDs, gids: o.NewGIDs},
		oldIDs:  idMaps{uids: o.OldUIDs, gids: o.OldGIDs},
		sameIDs: slices.Equal(o.NewUIDs, o.OldUIDs) && slices.Equal(o.NewGIDs, o.OldGIDs),
		trees:   make(map[object.Checksum]*commitTree),
	}
}

func (b *betweenWalk) run(ctx context.Context, newChain, oldChain []*Layer) error {
	newRoot, err := b.load(ctx, newChain)
	if err != nil {
		return err
	}
	oldRoot, err := b.load(ctx, oldChain)
	if err != nil {
		return err
	}
	return b.content(ctx, newRoot, oldRoot)
}

// load returns the root directory of a chain.
func (b *betweenWalk) load(ctx context.Context, chain []*Layer) ([]mergedAt, error) {
	var root []mergedAt
	for _, l := range chain {
		loose, err := l.Loose()
		if err != nil {
			return nil, err
		}
		if loose {
			return nil, fmt.Errorf("compare layer %s: written through a mount: %w", l.ID, ErrUnsupported)
		}
		t := b.trees[l.Commit]
		if t == nil {
			if t, err = readCommitTree(ctx, l.catalog.repo, l.Commit); err != nil {
				return nil, fmt.Errorf("layer %s: %w", l.ID, err)
			}
			b.trees[l.Commit] = t
		}
		root = append(root, mergedAt{t, t.root})
	}
	return cutOpaque(root), nil
}

// cutOpaque drops what an opaque directory hides.
func cutOpaque(dirs []mergedAt) []mergedAt {
	for i, d := range dirs {
		if d.node.opaque {
			return dirs[:i+1]
		}
	}
	return dirs
}

// mergeDirs returns what a mount shows in a directory that several layers have, by the bytes of the names.
func mergeDirs(dirs []mergedAt) []mergedEntry {
	type named struct {
		mergedAt
		layer int
	}
	var all []named
	for i, d := range dirs {
		for _, k := range d.node.kids {
			all = append(all, named{mergedAt{d.tree, k}, i})
		}
	}
	if len(dirs) > 1 {
		slices.SortFunc(all, func(a, b named) int {
			return cmp.Or(cmp.Compare(a.node.name, b.node.name), a.layer-b.layer)
		})
	}
	var merged []mergedEntry
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].node.name == all[0].node.name {
			n++
		}
		e := mergedEntry{mergedAt: all[0].mergedAt}
		for _, k := range all[:n] {
			if k.node.kind != commitDir {
				break // it hides what is below, and is hidden by directories above
			}
			e.dirs = append(e.dirs, k.mergedAt)
		}
		e.dirs = cutOpaque(e.dirs)
		if !e.hidden() {
			merged = append(merged, e)
		}
		all = all[n:]
	}
	return merged
}

// hidden says whether the entry is a mark that a mount does not show.
func (m mergedAt) hidden() bool {
	s := m.node.special
	return m.node.kind == commitWhiteout || s != nil && isWhiteoutSpecial(s)
}

// content compares the content of two directories; old is nil if all of the new one is new.
func (b *betweenWalk) content(ctx context.Context, newDirs, oldDirs []mergedAt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.sameIDs && slices.Equal(newDirs, oldDirs) {
		return nil // the same directories of the same layers
	}
	added, gone := mergeDirs(newDirs), mergeDirs(oldDirs)
	base := len(b.path)
	for len(added) > 0 || len(gone) > 0 {
		var order int // of the next names of both lists
		switch {
		case len(added) == 0:
			order = 1
		case len(gone) == 0:
			order = -1
		default:
			order = cmp.Compare(added[0].node.name, gone[0].node.name)
		}
		var e, old *mergedEntry
		if order <= 0 {
			e, added = &added[0], added[1:]
		}
		if order >= 0 {
			old, gone = &gone[0], gone[1:]
		}
		if err := b.entry(ctx, e, old); err != nil {
			return fmt.Errorf("compare %q: %w", b.path, err)
		}
		b.path = b.path[:base]
	}
	return nil
}

// entry compares what both trees have under one name; e or old is nil if one has nothing.
func (b *betweenWalk) entry(ctx context.Context, e, old *mergedEntry) error {
	if e == nil {
		b.path = append(append(b.path, '/'), old.node.name...)
		return b.add(ChangeDelete, mergedAt{})
	}
	b.path = append(append(b.path, '/'), e.node.name...)
	kind := ChangeAdd
	var oldDirs []mergedAt
	if old != nil {
		same, err := b.same(e.mergedAt, old.mergedAt)
		if err != nil {
			return err
		}
		if kind = ChangeModify; same {
			kind = unchanged
		}
		oldDirs = old.dirs
	}
	if e.node.kind != commitDir {
		if kind == unchanged {
			return nil
		}
		return b.add(kind, e.mergedAt)
	}
	at := len(b.changes)
	if err := b.add(max(kind, ChangeModify), e.mergedAt); err != nil {
		return err
	}
	err := b.content(ctx, e.dirs, oldDirs)
	if kind == unchanged && len(b.changes) == at+1 {
		b.changes = b.changes[:at]
	}
	return err
}

// add lists a change of the path, and counts the size of a new file.
func (b *betweenWalk) add(kind ChangeKind, m mergedAt) error {
	b.changes = append(b.changes, Change{Path: string(b.path), Kind: kind})
	if b.counted == nil || m.node == nil || m.node.kind == commitDir {
		return nil
	}
	inode := mergedInode{m.tree, m.node.first}
	if b.counted[inode] {
		return nil
	}
	b.counted[inode] = true
	size, err := m.tree.size(m.node)
	b.size += size
	return err
}
