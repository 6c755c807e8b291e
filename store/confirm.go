package store

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// manyObjects is how many a hold of the lock can look for without being long.
const manyObjects = 50_000

// confirm begins the last hold of a Publish that let go of the lock: until a ref names the commit, whoever prunes takes
// its objects for garbage. What is gone gets its name again from the stage, which has links of its own to all of it. With
// very many objects most are looked for in holds before: a directory that has not changed since has lost nothing.
func (s *Stage) confirm(h *sharing, files eachPlaced) error {
	var seen [256]prefix
	names := s.sortedNames()
	if len(s.held)+len(s.published)+len(s.metas) > manyObjects {
		h.end()
		time.Sleep(settledSince)
		if err := h.lock(); err != nil {
			return err
		}
		for xx, part := range names {
			if err := h.breathe(); err != nil {
				return err
			}
			var st unix.Stat_t
			if lstat(int(s.r.objects.Fd()), hexByte(byte(xx)), &st) != nil {
				continue
			}
			p := &seen[xx]
			p.changed, p.settled = since(&st, time.Now())
			p.seen = s.missing(part) == 0
		}
	}
	h.end()
	if err := h.lock(); err != nil {
		return err
	}
	lost := 0
	for xx, part := range names {
		var st unix.Stat_t
		if p := seen[xx]; p.seen && p.settled && lstat(int(s.r.objects.Fd()), hexByte(byte(xx)), &st) == nil && st.Ctim == p.changed {
			continue
		}
		lost += s.missing(part)
	}
	if lost == 0 {
		return nil
	}
	s.prefixes = [256]prefix{} // nothing is known of what was there
	return s.publishObjects(files, func() error { return nil })
}

// sortedNames returns all that Publish has published so far, by the first byte of its checksum.
func (s *Stage) sortedNames() (out [256][]object.Name) {
	for _, list := range [][]object.Name{s.held, s.published, s.metas} {
		for _, n := range list {
			if n.Type != object.TypeCommit {
				out[n.Checksum[0]] = append(out[n.Checksum[0]], n)
			}
		}
	}
	for i := range out {
		slices.SortFunc(out[i], object.Name.Compare)
		out[i] = slices.Compact(out[i])
	}
	return out
}

// missing counts the objects that are not there.
func (s *Stage) missing(names []object.Name) (n int) {
	for _, name := range names {
		var st unix.Stat_t
		if lstat(int(s.r.objects.Fd()), name.LoosePath(), &st) != nil {
			n++
		}
	}
	return n
}
