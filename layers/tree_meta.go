package layers

import (
	"encoding/binary"
	"slices"

	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// A metaID names a meta of a layerTree.
type metaID uint32

// A meta is what many inodes of a layer have in common: owner, mode and attributes.
type meta struct {
	uid, gid, mode uint32         // mode with S_IFMT
	xattrs         []object.Xattr // as the tar had them, empty values too, in canonical order, without a label
}

func (m *meta) isDir() bool { return m.mode&unix.S_IFMT == unix.S_IFDIR }

// stored returns the attributes that an object can hold: those with a value.
func (m *meta) stored() []object.Xattr {
	if !slices.ContainsFunc(m.xattrs, emptyXattr) {
		return m.xattrs
	}
	return slices.DeleteFunc(slices.Clone(m.xattrs), emptyXattr)
}

// empties returns the names of the attributes that have no value.
func (m *meta) empties() []string {
	var names []string
	for _, x := range m.xattrs {
		if emptyXattr(x) {
			names = append(names, x.Name)
		}
	}
	return names
}

func emptyXattr(x object.Xattr) bool { return len(x.Value) == 0 }

// with returns m with another attribute, which replaces one of the same name.
func (m meta) with(x object.Xattr) meta {
	m.xattrs = slices.DeleteFunc(slices.Clone(m.xattrs), func(o object.Xattr) bool { return o.Name == x.Name })
	m.xattrs = append(m.xattrs, x)
	object.SortXattrs(m.xattrs)
	return m
}

// without returns m without an attribute.
func (m meta) without(name string) meta {
	is := func(x object.Xattr) bool { return x.Name == name }
	if slices.ContainsFunc(m.xattrs, is) {
		m.xattrs = slices.DeleteFunc(slices.Clone(m.xattrs), is)
	}
	return m
}

func (m *meta) find(name string) ([]byte, bool) {
	for _, x := range m.xattrs {
		if x.Name == name {
			return x.Value, true
		}
	}
	return nil, false
}

// A metaTable keeps each different meta once. Metas are never changed, so that workers may read them while more are added.
type metaTable struct {
	list []*meta
	ids  map[string]metaID
	key  []byte
}

func (t *metaTable) get(id metaID) *meta { return t.list[id] }

// add returns the id of a meta, with attributes in canonical order.
func (t *metaTable) add(m meta) metaID {
	k := t.key[:0]
	for _, v := range []uint32{m.uid, m.gid, m.mode} {
		k = binary.LittleEndian.AppendUint32(k, v)
	}
	for _, x := range m.xattrs {
		k = binary.AppendUvarint(k, uint64(len(x.Name)))
		k = append(k, x.Name...)
		k = binary.AppendUvarint(k, uint64(len(x.Value)))
		k = append(k, x.Value...)
	}
	t.key = k
	if id, ok := t.ids[string(k)]; ok {
		return id
	}
	if t.ids == nil {
		t.ids = make(map[string]metaID)
	}
	id := metaID(len(t.list))
	t.list = append(t.list, &m)
	t.ids[string(k)] = id
	return id
}
