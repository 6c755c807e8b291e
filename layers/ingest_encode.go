package layers

import (
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// A treeEncoder writes the metadata of a layer's commit.
type treeEncoder struct {
	t     *layerTree
	w     metaWriter
	first map[inodeID]uint64 // index of the first name of inodes with several
	size  int64              // of all files and symlinks, hardlinks once
}

// encodeTree returns the metadata of a tree, how many entries its commit has, and the sum of the sizes.
func encodeTree(t *layerTree) (m *layerMeta, entries, size int64, err error) {
	e := &treeEncoder{t: t, first: make(map[inodeID]uint64)}
	e.entry(rootNode, 0)
	if err := e.content(rootNode); err != nil {
		return nil, 0, 0, err
	}
	return e.w.finish(), int64(e.w.entries), e.size, nil
}

// content encodes what is in a directory.
func (e *treeEncoder) content(dir nodeID) error {
	list, err := e.t.sorted(dir)
	if err != nil {
		return err
	}
	ordinal := e.w.dirs - 1
	for _, c := range list {
		if c.id == noNode { // the opaque mark
			e.w.entry(store.Time{})
			continue
		}
		e.entry(c.id, ordinal)
		if c.dir {
			if err := e.content(c.id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *treeEncoder) entry(id nodeID, parent uint64) {
	n := e.t.node(id)
	if n.kind == kindWhiteout {
		e.w.entry(store.Time{})
		e.name(id)
		return
	}
	i := e.t.inode(n.inode)
	e.w.entry(i.mtime())
	e.name(id)
	m := e.t.metas.get(i.meta)
	if n.kind == kindDir {
		e.w.directory(n.flags&nodeImplied != 0)
		e.w.empties(m.empties())
		return
	}
	var size int64
	switch n.kind {
	case kindFile:
		size = int64(i.val)
		e.w.size(size, false)
	case kindSymlink:
		size = i.targetLen()
		e.w.size(size, true)
	case kindRawLink:
		size = i.targetLen()
	}
	again := e.link(n.inode, i)
	if e.t.isSpecial(id) {
		e.special(id, parent, m)
	} else {
		e.w.empties(m.empties())
	}
	if !again {
		e.size += size
	}
}

func (e *treeEncoder) name(id nodeID) {
	if _, escaped := e.t.treeName(id); escaped {
		e.w.rawName(e.t.rawName(id))
	}
}

// link says if the entry is a further name of an inode.
func (e *treeEncoder) link(ino inodeID, i *inode) (again bool) {
	if i.names < 2 {
		return false
	}
	first, again := e.first[ino]
	if again {
		e.w.link(first)
	} else {
		e.first[ino] = e.w.index()
	}
	return again
}

func (e *treeEncoder) special(id nodeID, parent uint64, m *meta) {
	n := e.t.node(id)
	name, _ := e.t.treeName(id)
	s := &special{Dir: parent, Name: name, Mode: m.mode, UID: m.uid, GID: m.gid}
	switch n.kind {
	case kindDevice:
		v := e.t.inode(n.inode).val
		s.Major, s.Minor = uint32(v>>32), uint32(v)
	case kindRawLink:
		s.Target = e.t.target(id)
	}
	for _, x := range m.xattrs {
		s.Attrs = append(s.Attrs, attr{x.Name, string(x.Value)})
	}
	e.w.special(s)
}

// layerCommit is the commit of a tree.
func layerCommit(m *layerMeta, tree, dirmeta object.Checksum) *object.Commit {
	c := &object.Commit{Tree: tree, Meta: dirmeta}
	for _, f := range m.fields() {
		if len(*f.value) > 0 {
			c.Metadata = append(c.Metadata, object.MetadataEntry{Key: f.key, Value: object.BytesVariant(*f.value)})
		}
	}
	format := object.MetadataEntry{Key: keyFormat, Value: object.ByteVariant(layerFormat)}
	at := 0
	for at < len(c.Metadata) && c.Metadata[at].Key < keyFormat {
		at++
	}
	c.Metadata = append(c.Metadata[:at], append([]object.MetadataEntry{format}, c.Metadata[at:]...)...)
	return c
}

// whiteoutHeader is the header of the empty file that stands for a whiteout.
var whiteoutHeader = object.FileHeader{Mode: unix.S_IFREG | 0o644}
