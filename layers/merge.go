package layers

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

var errLoose = errors.New("layer was written through a mount")

// A Merged is what a mount of a chain of layers shows: whiteouts and opaque directories applied, made from the commits' trees
// without reading a file. In memory an entry takes what it takes during ingest.
type Merged struct {
	chain []*Layer // nearest first
	tree  *layerTree
	marks bool // whiteouts and opaque directories are kept, for what lies below the chain
	twice bool // some directories have to be there twice
	sum   object.Checksum
}

// Merge merges a chain, nearest first. Every layer must be applied, and nothing written to it through a mount.
func Merge(ctx context.Context, chain []*Layer) (*Merged, error) {
	return (&Merged{tree: newLayerTree(meta{mode: unix.S_IFDIR | defaultRootMode}, nil)}).merge(ctx, chain)
}

// merge lays a chain over a tree that has its root alone.
func (m *Merged) merge(ctx context.Context, chain []*Layer) (*Merged, error) {
	m.chain = chain
	for i := len(chain) - 1; i >= 0; i-- {
		l := chain[i]
		loose, err := l.Loose()
		if err == nil && loose {
			err = errLoose
		}
		if err == nil {
			err = l.Walk(ctx, (&merger{m: m, layer: nodeID(i), inodes: make(map[int]nodeID)}).entry)
		}
		if err != nil {
			return nil, fmt.Errorf("merge layer %s: %w", l.ID, err)
		}
	}
	return m, nil
}

// A merger puts one layer over what is merged so far.
type merger struct {
	m      *Merged
	layer  nodeID
	inodes map[int]nodeID // by index: first names of hardlinks, as long as the layer has more of them
	dir    string         // path of the last directory
	at     nodeID         // and its node
}

func (g *merger) entry(e *Entry) error {
	t := g.m.tree
	if e.Path == "." {
		g.dir, g.at = ".", rootNode
		g.root(e)
		return nil
	}
	parent, err := g.parent(path.Dir(e.Path))
	if err != nil {
		return err
	}
	name := path.Base(e.Path)
	old := t.child(parent, name)
	hidden := old != noNode && !(e.IsDir() && t.node(old).kind == kindDir)
	if hidden {
		t.dropAll(old)
		old = noNode
	}
	switch {
	case e.Whiteout, e.Mode&unix.S_IFMT == unix.S_IFCHR && e.Major == 0 && e.Minor == 0: // overlayfs takes the device for a whiteout as well
		if g.m.marks {
			t.add(parent, name, kindWhiteout)
		}
	case e.IsDir():
		g.directory(parent, name, old, e)
		if g.m.marks {
			g.mark(old, hidden || e.Opaque)
		}
	case e.First != e.Index:
		return g.link(parent, name, e)
	default:
		id := t.add(parent, name, entryKind(e))
		g.set(id, e)
		if e.linked {
			g.inodes[e.Index] = id
		}
	}
	return nil
}

// parent returns the directory of an entry. In tree order it is mostly that of the entry before.
func (g *merger) parent(dir string) (nodeID, error) {
	if dir == g.dir {
		return g.at, nil
	}
	p, err := (&resolver{tree: g.m.tree}).locate("/" + dir)
	if err != nil || len(p.missing) > 0 {
		return noNode, fmt.Errorf("%q is not there: %w", dir, errors.Join(err, errMeta))
	}
	g.dir, g.at = dir, p.node
	return p.node, nil
}

// root gives the root what the layer says of it. A root that the tar did not list has inherited owner and mode, as rootMeta has it. That a root is opaque means
// nothing to overlayfs, which stacks the roots of all layers.
func (g *merger) root(e *Entry) {
	i := g.m.tree.inodeOf(rootNode)
	if e.Implied {
		below := g.m.tree.metas.get(i.meta)
		e.UID, e.GID, e.Mode = below.uid, below.gid, unix.S_IFDIR|below.mode&0o755
	}
	g.set(rootNode, e)
}

func (g *merger) directory(parent nodeID, name string, old nodeID, e *Entry) {
	t := g.m.tree
	if old == noNode {
		old = t.add(parent, name, kindDir)
	} else if e.Opaque {
		t.dropContent(old)
	}
	g.set(old, e)
	g.dir, g.at = e.Path, old
}

// mark notes of a directory that the layer has whether it hides what is below it, and whether the chain has it in several layers.
func (g *merger) mark(old nodeID, hides bool) {
	n := g.m.tree.node(g.at)
	switch {
	case hides:
		n.flags = nodeOpaque
	case old != noNode:
		n.flags |= nodeMerged
	}
}

func (g *merger) link(parent nodeID, name string, e *Entry) error {
	first, ok := g.inodes[e.First]
	if !ok {
		return &metaError{keyLinks, fmt.Sprintf("%q is linked to nothing", e.Path)}
	}
	g.m.tree.link(parent, name, first)
	return nil
}

// set gives a node what the layer says of its inode. Of a directory, val is what is in it.
func (g *merger) set(id nodeID, e *Entry) {
	t := g.m.tree
	i := t.inodeOf(id)
	i.sum, i.home = e.Checksum, g.layer
	i.setMTime(e.MTime)
	i.meta = t.metas.add(meta{uid: e.UID, gid: e.GID, mode: e.Mode, xattrs: e.Xattrs})
	switch t.node(id).kind {
	case kindFile:
		i.val = uint64(e.Size)
	case kindSymlink:
		i.val = uint64(e.Size) & 0xffff
	case kindRawLink:
		t.setTarget(id, e.Target)
	case kindDevice:
		i.val = uint64(e.Major)<<32 | uint64(e.Minor)
	}
}

func entryKind(e *Entry) nodeKind {
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return kindFile
	case unix.S_IFLNK:
		if e.object {
			return kindSymlink
		}
		return kindRawLink
	case unix.S_IFIFO:
		return kindFifo
	}
	return kindDevice
}

// Walk calls fn for each entry in tree order, with the layer that it comes from. There are no whiteouts and nothing is opaque. It
// reads nothing.
func (m *Merged) Walk(ctx context.Context, fn func(*Entry, *Layer) error) error {
	w := &mergedWalk{m: m, ctx: ctx, fn: fn, firsts: make(map[inodeID]int)}
	return w.node(rootNode, ".")
}

type mergedWalk struct {
	m      *Merged
	ctx    context.Context //nolint:containedctx // lives for one walk
	fn     func(*Entry, *Layer) error
	index  int
	firsts map[inodeID]int // index of the first name of inodes with several
}

func (w *mergedWalk) node(id nodeID, at string) error {
	t := w.m.tree
	n := t.node(id)
	i := t.inode(n.inode)
	x := t.metas.get(i.meta)
	e := &Entry{
		Path: at, Mode: x.mode, UID: x.uid, GID: x.gid, MTime: i.mtime(), Xattrs: x.xattrs, Checksum: i.sum,
		Index: w.index, First: w.index, object: n.kind == kindFile || n.kind == kindSymlink,
	}
	w.index++
	switch n.kind {
	case kindFile:
		e.Size = int64(i.val)
	case kindSymlink:
		e.Size = i.targetLen()
	case kindRawLink:
		e.Target = t.target(id)
		e.Size = int64(len(e.Target))
	case kindDevice:
		e.Major, e.Minor = uint32(i.val>>32), uint32(i.val)
	}
	if i.names > 1 {
		if first, ok := w.firsts[n.inode]; ok {
			e.First = first
		} else {
			e.linked = true
			w.firsts[n.inode] = e.Index
		}
	}
	if err := w.fn(e, w.m.chain[i.home]); err != nil || n.kind != kindDir {
		return err
	}
	return w.content(id, at)
}

func (w *mergedWalk) content(dir nodeID, at string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	list, err := w.m.tree.sorted(dir)
	if err != nil {
		return err
	}
	prefix := at + "/"
	if at == "." {
		prefix = ""
	}
	for _, c := range list {
		if err := w.node(c.id, prefix+w.m.tree.name(c.id)); err != nil {
			return err
		}
	}
	return nil
}

// Checksum names what the chain shows: two chains that show the same in repositories with the same store label have the same. It is that
// of the commit of a layer that would show it alone.
func (m *Merged) Checksum() (object.Checksum, error) {
	if !m.sum.IsZero() {
		return m.sum, nil
	}
	meta, _, _, err := encodeTree(m.tree)
	if err != nil {
		return object.Checksum{}, err
	}
	tree, dirmeta, err := m.sumDir(rootNode)
	if err != nil {
		return object.Checksum{}, err
	}
	b, err := layerCommit(meta, tree, dirmeta).AppendBinary(nil)
	if err != nil {
		return object.Checksum{}, err
	}
	m.sum = object.Sum(b)
	return m.sum, nil
}

// sumDir returns the checksums of a directory's dirtree and dirmeta.
func (m *Merged) sumDir(dir nodeID) (tree, dirmeta object.Checksum, err error) {
	list, err := m.tree.sorted(dir)
	if err != nil {
		return tree, dirmeta, err
	}
	var d object.DirTree
	for _, c := range list {
		i := m.tree.inodeOf(c.id)
		if c.dir {
			e := object.TreeDir{Name: c.name}
			if e.Tree, e.Meta, err = m.sumDir(c.id); err != nil {
				return tree, dirmeta, err
			}
			d.Dirs = append(d.Dirs, e)
		} else if !m.tree.isSpecial(c.id) {
			d.Files = append(d.Files, object.TreeFile{Name: c.name, Checksum: i.sum})
		}
	}
	b, err := d.AppendBinary(nil)
	if err != nil {
		return tree, dirmeta, err
	}
	x := m.tree.metas.get(m.tree.inodeOf(dir).meta)
	xattrs := x.stored()
	if label := m.chain[0].catalog.repo.Label(); label != "" {
		xattrs = append(xattrs[:len(xattrs):len(xattrs)], object.Xattr{Name: labelXattr, Value: append([]byte(label), 0)})
		object.SortXattrs(xattrs)
	}
	db, err := (&object.DirMeta{UID: x.uid, GID: x.gid, Mode: x.mode, Xattrs: xattrs}).AppendBinary(nil)
	return object.Sum(b), object.Sum(db), err
}
