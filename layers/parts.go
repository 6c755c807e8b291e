package layers

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// A Part of a chain is a layer, or a segment, which stands for several.
type Part struct {
	Layer *Layer   // nil of a segment
	Dirs  []string // of a segment: what is mounted, nearest first
}

// Parts returns what lies below a layer, nearest first. The error matches ErrUnknown if a layer is in no catalog; those of segments are
// there.
func (cs Catalogs) Parts(l *Layer) ([]Part, error) {
	segments, covered, err := cs.segments(l.Ancestors)
	if err != nil {
		return nil, fmt.Errorf("segments below layer %s: %w", l.ID, err)
	}
	parts, err := EachOf(l.Ancestors[:len(l.Ancestors)-covered], func(id string) (Part, error) {
		l, err := cs.find(id, false)
		return Part{Layer: l}, err
	})
	if err != nil {
		return nil, fmt.Errorf("ancestor of layer %s: %w", l.ID, err)
	}
	return append(parts, segments...), nil
}

// A foundSegment is one that may stand for some layers of a chain.
type foundSegment struct {
	catalog int
	top     string
	list    segmentList
}

// segments returns the segments that stand for the last layers of a chain, nearest first, and how many layers they cover.
func (cs Catalogs) segments(ids []string) (parts []Part, covered int, err error) {
	k := cs[0].o.segment()
	var found []foundSegment // the lowest first
	below := ""
	for i := len(ids) - k; i >= 0; i -= k {
		s, ok := cs.findSegment(ids[i : i+k])
		if !ok || s.list.below != below {
			break
		}
		below = s.list.digest()
		found = append(found, s)
	}
	if len(found) == 0 {
		return nil, 0, nil
	}
	at := make([]int, len(found)*k) // nearest first
	for i := range at {
		at[i] = i
	}
	plain, err := EachOf(at, func(i int) (bool, error) {
		s := &found[len(found)-1-i/k]
		return cs.standsIn(s.catalog, &s.list.own[i%k])
	})
	if err != nil {
		return nil, 0, err
	}
	found = found[:trailing(plain)/k]
	for i := len(found) - 1; i >= 0; i-- {
		dir := (&Layer{ID: found[i].top, catalog: cs[found[i].catalog]}).segmentDir()
		dirs := []string{dir + "/" + treeDirName}
		if twice := dir + "/" + segmentDirs; exists(twice) {
			dirs = []string{twice, dirs[0]}
		}
		parts = append(parts, Part{Dirs: dirs})
	}
	return parts, len(found) * k, nil
}

// findSegment looks for the segment of these layers.
func (cs Catalogs) findSegment(ids []string) (foundSegment, bool) {
	for i, c := range cs {
		if checkLayerID(ids[0]) != nil {
			break
		}
		list, err := c.readSegment(ids[0])
		if err != nil {
			if c.Exists(ids[0]) {
				break // it is this one's layer, whatever others have
			}
			continue
		}
		same := slices.EqualFunc(list.own, ids, func(l segmentLayer, id string) bool { return l.id == id })
		return foundSegment{i, ids[0], list}, same
	}
	return foundSegment{}, false
}

// standsIn reports whether a layer is still what a segment has of it: the same tree, nothing written to it and no owners changed. Mostly its
// directories did not change since.
func (cs Catalogs) standsIn(catalog int, s *segmentLayer) (bool, error) {
	var st unix.Stat_t
	is := func(c *Catalog, path string) bool {
		return unix.Fstatat(int(c.layers.Fd()), path, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	}
	for _, c := range cs[:catalog] {
		if is(c, s.id) {
			return false, nil
		}
	}
	c := cs[catalog]
	if s.dir.ino != 0 && s.diff.ino != 0 && is(c, s.id) && stampOf(&st) == s.dir && is(c, s.id+"/"+diffName) && stampOf(&st) == s.diff {
		return true, nil
	}
	if !is(c, s.id+"/"+treeDirName) || st.Ino != s.tree || is(c, s.id+"/"+mappedName) {
		return false, nil
	}
	loose, err := holdsNames(int(c.layers.Fd()), s.id+"/"+diffName)
	return !loose, err
}
