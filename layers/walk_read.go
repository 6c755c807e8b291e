package layers

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

var (
	errNotApplied = errors.New("nothing was applied to the layer")
	errNotLayer   = errors.New("not a commit of a layer")
)

// walkFuncs are called along a walk.
type walkFuncs struct {
	entry func(*Entry) error
	leave func() error // after the content of a directory; may be nil
}

// A commitWalk reads a layer commit in tree order, the trees and the metadata side by side.
type commitWalk struct {
	ctx      context.Context
	repo     *store.Repo
	call     walkFuncs
	meta     *metaReader
	whiteout object.Checksum
	dirmetas map[object.Checksum]*object.DirMeta
	firsts   map[uint64]*linkedEntry // by index: entries that a later one is a hardlink to
}

// A linkedEntry is what all names of an inode must have in common.
type linkedEntry struct {
	seen     bool
	checksum object.Checksum
	time     store.Time
	size     int64
	special  *special
}

func walkCommit(ctx context.Context, r *store.Repo, commit object.Checksum, call walkFuncs) error {
	c, err := r.ReadCommit(commit)
	if err != nil {
		return err
	}
	m, err := readLayerMeta(c)
	if err != nil {
		return err
	}
	w := &commitWalk{
		ctx: ctx, repo: r, call: call, meta: newMetaReader(m),
		dirmetas: make(map[object.Checksum]*object.DirMeta), firsts: linkFirsts(m),
	}
	if w.whiteout, err = whiteoutChecksum(r.Label()); err != nil {
		return err
	}
	root := w.begin()
	root.Path = "."
	if err := w.dir(root, "", c.Tree, c.Meta, 0); err != nil {
		return err
	}
	return w.meta.finish()
}

// readLayerMeta takes the metadata out of a commit.
func readLayerMeta(c *object.Commit) (*layerMeta, error) {
	format, ok := c.Lookup(keyFormat)
	if !ok {
		return nil, errNotLayer
	}
	if v, err := format.Byte(); err != nil || v != layerFormat {
		return nil, fmt.Errorf("%w: format of a later version", errNotLayer)
	}
	m := &layerMeta{}
	known := map[string]*[]byte{keyFormat: nil}
	for _, f := range m.fields() {
		known[f.key] = f.value
	}
	last := ""
	for _, e := range c.Metadata {
		value, ok := known[e.Key]
		if strings.HasPrefix(e.Key, "ostree-storage.") {
			if e.Key <= last {
				return nil, &metaError{e.Key, "key is repeated or out of order"}
			}
			last = e.Key
		}
		switch {
		case !ok && strings.HasPrefix(e.Key, "ostree-storage."):
			return nil, &metaError{e.Key, "unknown key"}
		case value == nil:
			continue
		}
		b, err := e.Value.Bytes()
		if err != nil || len(b) == 0 {
			return nil, &metaError{e.Key, "empty or of another type"}
		}
		*value = b
	}
	return m, nil
}

// linkFirsts lists the indexes that the links lead to. Faults are found when the links are read in their place.
func linkFirsts(m *layerMeta) map[uint64]*linkedEntry {
	firsts := make(map[uint64]*linkedEntry)
	c := newCursor(keyLinks, m.links)
	for at := uint64(0); c.more() && c.err == nil; {
		at += c.uvarint()
		firsts[at-c.uvarint()] = &linkedEntry{}
	}
	return firsts
}

// whiteoutChecksum is the checksum of the object that stands for every whiteout.
func whiteoutChecksum(label string) (object.Checksum, error) {
	h := whiteoutHeader
	if label != "" {
		h.Xattrs = []object.Xattr{{Name: labelXattr, Value: append([]byte(label), 0)}}
	}
	return h.Checksum(nil)
}

// begin begins the next entry.
func (w *commitWalk) begin() *Entry {
	t := w.meta.entry()
	i := int(w.meta.index())
	return &Entry{MTime: t, Index: i, First: i}
}

// dir reads a directory and all below it. e has been begun and has its path; prefix is what paths in it begin with.
func (w *commitWalk) dir(e *Entry, prefix string, tree, dirmeta object.Checksum, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return errDeep
	}
	t, err := w.repo.ReadDirTree(tree)
	if err != nil {
		return err
	}
	if err := w.dirEntry(e, t, tree, dirmeta); err != nil {
		return err
	}
	if err := w.files(prefix, w.meta.ordinal(), t.Files); err != nil {
		return err
	}
	for _, d := range t.Dirs {
		sub := w.begin()
		raw, err := w.rawName(d.Name, false)
		if err != nil {
			return err
		}
		sub.Path = prefix + raw
		if err := w.dir(sub, sub.Path+"/", d.Tree, d.Meta, depth+1); err != nil {
			return err
		}
	}
	if w.call.leave != nil {
		return w.call.leave()
	}
	return nil
}

// dirEntry reports a directory itself.
func (w *commitWalk) dirEntry(e *Entry, t *object.DirTree, tree, dirmeta object.Checksum) error {
	m := w.dirmetas[dirmeta]
	if m == nil {
		var err error
		if m, err = w.repo.ReadDirMeta(dirmeta); err != nil {
			return err
		}
		w.dirmetas[dirmeta] = m
	}
	e.Mode, e.UID, e.GID, e.Checksum = m.Mode, m.UID, m.GID, tree
	e.Implied = w.meta.directory()
	for _, x := range m.Xattrs {
		if x.Name != labelXattr {
			e.Xattrs = append(e.Xattrs, x)
		}
	}
	e.addEmpties(w.meta.empties())
	for _, f := range t.Files {
		e.Opaque = e.Opaque || f.Name == opaqueName
	}
	if err := w.meta.err(); err != nil {
		return err
	}
	return w.call.entry(e)
}

func (e *Entry) addEmpties(names []string) {
	if len(names) == 0 {
		return
	}
	for _, n := range names {
		e.Xattrs = append(e.Xattrs, object.Xattr{Name: n})
	}
	object.SortXattrs(e.Xattrs)
}

// files reads what is in a directory and is none: its files and its specials, in the order of their tree names.
func (w *commitWalk) files(prefix string, ordinal uint64, files []object.TreeFile) error {
	for {
		s := w.meta.special(ordinal)
		var err error
		switch {
		case s == nil && len(files) == 0:
			return w.meta.err()
		case s == nil || len(files) > 0 && files[0].Name < s.Name:
			err = w.file(prefix, files[0])
			files = files[1:]
		case len(files) > 0 && files[0].Name == s.Name:
			err = &metaError{keySpecials, "name is that of a file"}
		default:
			err = w.special(prefix, s)
			w.meta.take()
		}
		if err == nil {
			err = w.meta.err()
		}
		if err != nil {
			return err
		}
	}
}

// file reads an entry that has a file object: a whiteout, a regular file or a symlink.
func (w *commitWalk) file(prefix string, f object.TreeFile) error {
	e := w.begin()
	raw, err := w.rawName(f.Name, true)
	if err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(raw, whiteoutPrefix); ok {
		if f.Checksum != w.whiteout || e.MTime != (store.Time{}) {
			return fmt.Errorf("whiteout %q has content or a time", prefix+raw)
		}
		if raw == opaqueName {
			return nil // told with the directory
		}
		if !validRawName(name) {
			return fmt.Errorf("%w %q", errWhiteout, prefix+raw)
		}
		e.Path, e.Whiteout = prefix+name, true
		return w.call.entry(e)
	}
	e.Path, e.Checksum, e.object = prefix+raw, f.Checksum, true
	size, symlink := w.meta.size()
	e.Size, e.Mode = size, unix.S_IFREG
	if symlink {
		e.Mode = unix.S_IFLNK
	}
	e.addEmpties(w.meta.empties())
	if err := w.links(e, nil); err != nil {
		return err
	}
	return w.call.entry(e)
}

// special reads an entry that has none.
func (w *commitWalk) special(prefix string, s *special) error {
	e := w.begin()
	raw, err := w.rawName(s.Name, false)
	if err != nil {
		return err
	}
	e.Path, e.Mode, e.UID, e.GID, e.Major, e.Minor = prefix+raw, s.Mode, s.UID, s.GID, s.Major, s.Minor
	e.Target, e.Size = s.Target, int64(len(s.Target))
	for _, a := range s.Attrs {
		e.Xattrs = append(e.Xattrs, object.Xattr{Name: a.Name, Value: []byte(a.Value)})
	}
	if err := w.links(e, s); err != nil {
		return err
	}
	return w.call.entry(e)
}

// rawName returns the name that an entry has in the layer tar. In a list of files, names may be those of whiteouts.
func (w *commitWalk) rawName(name string, file bool) (string, error) {
	if !strings.HasPrefix(name, rawPrefix) {
		if !file && strings.HasPrefix(name, whiteoutPrefix) || !validTreeName(name) {
			return "", fmt.Errorf("%w %q", errName, name)
		}
		return name, nil
	}
	raw, ok := w.meta.rawName()
	if !ok {
		return "", &metaError{keyNames, "no name for " + name}
	}
	whiteout := file && strings.HasPrefix(raw, whiteoutPrefix)
	if tree, escaped := treeName(raw, whiteout); !escaped || tree != name || !whiteout && !validRawName(raw) {
		return "", &metaError{keyNames, "wrong name for " + name}
	}
	return raw, nil
}

// links sets e.First, and checks that hardlinks agree.
func (w *commitWalk) links(e *Entry, s *special) error {
	if first, ok := w.meta.link(); ok {
		l := w.firsts[first]
		if l == nil || !l.seen || l.checksum != e.Checksum || l.time != e.MTime || l.size != e.Size || !l.special.like(s) {
			return &metaError{keyLinks, fmt.Sprintf("%q is not like the entry that it is linked to", e.Path)}
		}
		e.First = int(first)
		return nil
	}
	if l := w.firsts[uint64(e.Index)]; l != nil {
		e.linked = true
		*l = linkedEntry{seen: true, checksum: e.Checksum, time: e.MTime, size: e.Size, special: s}
	}
	return nil
}

// like compares two specials but for their names.
func (s *special) like(o *special) bool {
	if s == nil || o == nil {
		return s == o
	}
	a, b := *s, *o
	a.Dir, a.Name, b.Dir, b.Name = 0, "", 0, ""
	return fmt.Sprint(a) == fmt.Sprint(b)
}
