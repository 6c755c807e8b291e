package layers

import (
	"encoding/binary"

	"github.com/ostree-storage/ostree-storage/store"
)

// A metaWriter encodes the metadata of a layer commit. Its methods are called in tree order: entry once for each entry, then
// those of the others that apply to that entry.
type metaWriter struct {
	m       layerMeta
	entries uint64 // entries so far
	dirs    uint64 // directories so far

	run     uint64 // length of the run of equal times
	runTime store.Time
	prevSec int64

	prevLink, prevName, prevAttr, prevImplied, prevSpecial uint64
}

// entry begins an entry with its time.
func (w *metaWriter) entry(t store.Time) {
	if w.run > 0 && t != w.runTime {
		w.endRun()
	}
	w.runTime = t
	w.run++
	w.entries++
}

func (w *metaWriter) endRun() {
	if w.run == 0 {
		return
	}
	w.m.times = binary.AppendUvarint(w.m.times, w.run)
	w.m.times = binary.AppendVarint(w.m.times, w.runTime.Sec-w.prevSec)
	w.m.times = binary.AppendUvarint(w.m.times, uint64(w.runTime.Nsec))
	w.prevSec, w.run = w.runTime.Sec, 0
}

// index is the position of the entry that was begun last.
func (w *metaWriter) index() uint64 { return w.entries - 1 }

// directory says that the entry is a directory.
func (w *metaWriter) directory(implied bool) {
	ordinal := w.dirs
	w.dirs++
	if implied {
		w.m.implied = binary.AppendUvarint(w.m.implied, ordinal-w.prevImplied)
		w.prevImplied = ordinal
	}
}

// size says that the entry is a regular file of that many bytes, or a symlink whose target has that many.
func (w *metaWriter) size(n int64, symlink bool) {
	v := uint64(n) << 1
	if symlink {
		v |= 1
	}
	w.m.sizes = binary.AppendUvarint(w.m.sizes, v)
}

// link says that the entry is a further name of the inode whose first name is at index first.
func (w *metaWriter) link(first uint64) {
	i := w.index()
	w.m.links = binary.AppendUvarint(w.m.links, i-w.prevLink)
	w.m.links = binary.AppendUvarint(w.m.links, i-first)
	w.prevLink = i
}

// rawName says what an entry is called whose tree name is not its name.
func (w *metaWriter) rawName(raw string) {
	i := w.index()
	w.m.names = binary.AppendUvarint(w.m.names, i-w.prevName)
	w.m.names = appendText(w.m.names, raw)
	w.prevName = i
}

// empties says which attributes of the entry have no value, in canonical order.
func (w *metaWriter) empties(names []string) {
	if len(names) == 0 {
		return
	}
	i := w.index()
	w.m.attrs = binary.AppendUvarint(w.m.attrs, i-w.prevAttr)
	w.m.attrs = binary.AppendUvarint(w.m.attrs, uint64(len(names)))
	for _, n := range names {
		w.m.attrs = appendText(w.m.attrs, n)
	}
	w.prevAttr = i
}

// special says that the entry has no object, and all that is known about it. dir is the ordinal of its directory.
func (w *metaWriter) special(s *special) {
	b := binary.AppendUvarint(w.m.specials, s.Dir-w.prevSpecial)
	w.prevSpecial = s.Dir
	b = appendText(b, s.Name)
	for _, v := range []uint32{s.Mode, s.UID, s.GID, s.Major, s.Minor} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = appendText(b, s.Target)
	b = binary.AppendUvarint(b, uint64(len(s.Attrs)))
	for _, a := range s.Attrs {
		b = appendText(b, a.Name)
		b = appendText(b, a.Value)
	}
	w.m.specials = b
}

// finish returns the metadata.
func (w *metaWriter) finish() *layerMeta {
	w.endRun()
	return &w.m
}
