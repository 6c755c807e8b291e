package layers

import (
	"math"

	"github.com/ostree-storage/ostree-storage/store"
)

// A metaReader decodes the metadata of a layer commit along a walk in tree order, the mirror of a metaWriter. It accepts
// what a metaWriter can have written and nothing else. After a fault its methods return zeros; err has the fault.
type metaReader struct {
	times, sizes, links, specials, names, implied, attrs cursor

	entries uint64 // entries so far
	dirs    uint64 // directories so far

	run     uint64 // entries left of the run of equal times
	runTime store.Time
	begun   bool // a run was read

	nextLink, nextName, nextAttr, nextImplied position
	linkBack                                  uint64
	nextSpecial                               *special
	fault                                     error
}

// A position is the next index in a list of ascending indexes.
type position struct {
	at    uint64
	valid bool
	begun bool
}

// advance reads the distance to the next index.
func (p *position) advance(c *cursor) {
	if p.valid = c.more(); !p.valid {
		return
	}
	step := c.uvarint()
	if p.begun && step == 0 {
		c.fail("index is repeated")
	}
	if step > math.MaxInt64-p.at {
		c.fail("index is too large")
	}
	p.begun = true
	p.at += step
	p.valid = c.err == nil
}

func newMetaReader(m *layerMeta) *metaReader {
	r := &metaReader{
		times: newCursor(keyTimes, m.times), sizes: newCursor(keySizes, m.sizes), links: newCursor(keyLinks, m.links),
		specials: newCursor(keySpecials, m.specials), names: newCursor(keyNames, m.names),
		implied: newCursor(keyImplied, m.implied), attrs: newCursor(keyAttrs, m.attrs),
	}
	r.advanceLink()
	r.nextName.advance(&r.names)
	r.nextAttr.advance(&r.attrs)
	r.nextImplied.advance(&r.implied)
	r.advanceSpecial()
	return r
}

func (r *metaReader) cursors() []*cursor {
	return []*cursor{&r.times, &r.sizes, &r.links, &r.specials, &r.names, &r.implied, &r.attrs}
}

// err returns the first fault of any value.
func (r *metaReader) err() error {
	if r.fault != nil {
		return r.fault
	}
	for _, c := range r.cursors() {
		if c.err != nil {
			r.fault = c.err
			return r.fault
		}
	}
	return nil
}

// index is the position of the entry that was begun last.
func (r *metaReader) index() uint64 { return r.entries - 1 }

// entry begins an entry and returns its time.
func (r *metaReader) entry() store.Time {
	if r.run == 0 {
		r.nextRun()
	}
	r.run--
	r.entries++
	return r.runTime
}

func (r *metaReader) nextRun() {
	c := &r.times
	if !c.more() {
		c.fail("fewer times than entries")
	}
	n, step, nsec := c.uvarint(), c.zigzag(), c.uvarint()
	t := store.Time{Sec: r.runTime.Sec + step, Nsec: uint32(nsec)}
	switch {
	case n == 0:
		c.fail("empty run")
	case nsec >= 1e9:
		c.fail("a second or more of nanoseconds")
	case r.begun && t == r.runTime:
		c.fail("run continues the one before")
	}
	if c.err != nil {
		n, t = 1, store.Time{}
	}
	r.begun = true
	r.run, r.runTime = n, t
}

// directory says whether the entry, a directory, is implied.
func (r *metaReader) directory() (implied bool) {
	ordinal := r.dirs
	r.dirs++
	if !r.nextImplied.valid || r.nextImplied.at != ordinal {
		return false
	}
	r.nextImplied.advance(&r.implied)
	return true
}

// ordinal is the directory ordinal of the directory that was begun last.
func (r *metaReader) ordinal() uint64 { return r.dirs - 1 }

// size returns the size of the entry, which has a file object, and whether it is a symlink.
func (r *metaReader) size() (n int64, symlink bool) {
	if !r.sizes.more() {
		r.sizes.fail("fewer sizes than files")
	}
	v := r.sizes.uvarint()
	return int64(v >> 1), v&1 != 0
}

func (r *metaReader) advanceLink() {
	r.nextLink.advance(&r.links)
	if !r.nextLink.valid {
		return
	}
	r.linkBack = r.links.uvarint()
	if r.linkBack == 0 || r.linkBack > r.nextLink.at {
		r.links.fail("link to no earlier entry")
	}
	r.nextLink.valid = r.links.err == nil
}

// link returns the index of the first name of the entry's inode, and false if the entry is that name.
func (r *metaReader) link() (first uint64, ok bool) {
	if !r.nextLink.valid || r.nextLink.at != r.index() {
		return 0, false
	}
	first = r.index() - r.linkBack
	r.advanceLink()
	return first, true
}

// rawName returns the name of an entry whose tree name is not its name.
func (r *metaReader) rawName() (string, bool) {
	if !r.nextName.valid || r.nextName.at != r.index() {
		return "", false
	}
	s := r.names.text()
	r.nextName.advance(&r.names)
	return s, true
}

// empties returns the names of the entry's attributes that have no value.
func (r *metaReader) empties() []string {
	if !r.nextAttr.valid || r.nextAttr.at != r.index() {
		return nil
	}
	c := &r.attrs
	n := c.uvarint()
	if n == 0 || n > uint64(len(c.b)) {
		c.fail("wrong number of attributes")
		return nil
	}
	names := make([]string, 0, min(n, 64))
	for i := uint64(0); i < n && c.err == nil; i++ {
		s := c.text()
		if s == "" || len(names) > 0 && s <= names[len(names)-1] {
			c.fail("attributes are not in order")
		}
		names = append(names, s)
	}
	r.nextAttr.advance(c)
	return names
}

// special returns the next special of the directory with that ordinal without taking it, nil if there is none.
func (r *metaReader) special(dir uint64) *special {
	if s := r.nextSpecial; s != nil && s.Dir == dir {
		return s
	}
	return nil
}

// take goes on to the next special.
func (r *metaReader) take() { r.advanceSpecial() }

// finish returns the first fault, or says that something was left over.
func (r *metaReader) finish() error {
	if r.run > 0 {
		r.times.fail("more times than entries")
	}
	left := map[*cursor]bool{
		&r.links: r.nextLink.valid, &r.names: r.nextName.valid, &r.attrs: r.nextAttr.valid,
		&r.implied: r.nextImplied.valid, &r.specials: r.nextSpecial != nil,
	}
	for _, c := range r.cursors() {
		if c.more() || left[c] {
			c.fail("belongs to no entry")
		}
	}
	return r.err()
}
