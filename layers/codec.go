package layers

import (
	"errors"
	"fmt"
	"sort"
)

// The keys of a layer commit's metadata. Each value but the first is an array of bytes, absent when it would be empty.
// docs/format.md defines them; "tree order" and "directory ordinal" are explained there.
const (
	keyFormat   = "ostree-storage.format"
	keyTimes    = "ostree-storage.times"
	keySizes    = "ostree-storage.sizes"
	keyLinks    = "ostree-storage.links"
	keySpecials = "ostree-storage.specials"
	keyNames    = "ostree-storage.names"
	keyImplied  = "ostree-storage.implied"
	keyAttrs    = "ostree-storage.attrs"
)

// layerFormat is the version of the format of a layer commit.
const layerFormat = 1

// A layerMeta is the metadata of a layer commit, still encoded.
type layerMeta struct {
	times, sizes, links, specials, names, implied, attrs []byte
}

// fields returns the values by key, for reading and for writing, in the order of the keys.
func (m *layerMeta) fields() []metaField {
	f := []metaField{
		{keyTimes, &m.times}, {keySizes, &m.sizes}, {keyLinks, &m.links}, {keySpecials, &m.specials},
		{keyNames, &m.names}, {keyImplied, &m.implied}, {keyAttrs, &m.attrs},
	}
	sort.Slice(f, func(i, j int) bool { return f[i].key < f[j].key })
	return f
}

type metaField struct {
	key   string
	value *[]byte
}

// A special is an entry that has no object: a device, a fifo, or a symlink whose target is not UTF-8.
type special struct {
	Dir          uint64 // directory ordinal
	Name         string // tree name
	Mode         uint32 // with S_IFMT
	UID, GID     uint32
	Major, Minor uint32
	Target       string
	Attrs        []attr // canonical order, empty values too
}

// An attr is an extended attribute.
type attr struct{ Name, Value string }

// errMeta is wrapped by every error about a commit's metadata.
var errMeta = errors.New("bad layer metadata")

// A metaError says what is wrong with one value of the metadata.
type metaError struct {
	key, reason string
}

func (e *metaError) Error() string { return fmt.Sprintf("%v: %s: %s", errMeta, e.key, e.reason) }
func (e *metaError) Unwrap() error { return errMeta }
