package store

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// manyObjects is how many a hold of the lock can look for without being long.
const manyObjects = 50_000

// confirm begins the last hold of a Publish that let go of the lock: until a ref names the commit, whoever prunes takes
// its objects for garbage. What is gone gets its name again from the stage, which has links of its own to all of it. With
// very many objects they are looked for in holds before: a directory that has not changed since has lost nothing.
func (s *Stage) confirm(h *sharing, files eachPlaced) error {
	var suspect [256]bool
	for i := range suspect {
		suspect[i] = true
	}
	if s.published.Load()+int64(len(s.held)+len(s.metas)) > manyObjects {
		h.end()
		time.Sleep(settledSince)
		if err := h.lock(); err != nil {
			return err
		}
		before := s.prefixesNow()
		lost, err := s.lost(files, h.turn, &suspect)
		if err != nil {
			return err
		}
		if err := h.lock(); err != nil {
			return err
		}
		for i, now := range s.prefixesNow() {
			suspect[i] = lost[i] || !before[i].settled || now.changed != before[i].changed
		}
	} else if err := h.lock(); err != nil {
		return err
	}
	lost, err := s.lost(files, held, &suspect)
	if err != nil || lost == [256]bool{} {
		return err
	}
	s.prefixes = [256]prefix{} // nothing is known of what was there
	return s.publishObjects(files, held)
}

// held is the turn of who has the lock and keeps it.
func held(f func() error) error { return f() }

// prefixesNow looks at the directories of objects.
func (s *Stage) prefixesNow() (out [256]prefix) {
	for i := range out {
		var st unix.Stat_t
		if lstat(int(s.r.objects.Fd()), hexByte(byte(i)), &st) == nil {
			out[i].changed, out[i].settled = since(&st, time.Now())
		}
	}
	return out
}

// lost looks for all that was published in the suspect directories, and tells in which of them something is not there.
func (s *Stage) lost(files eachPlaced, turn turn, suspect *[256]bool) (lost [256]bool, err error) {
	var mu sync.Mutex
	look := func(n object.Name) error {
		xx := n.Checksum[0]
		if n.Type == object.TypeCommit || !suspect[xx] {
			return nil
		}
		return turn(func() error {
			var st unix.Stat_t
			if lstat(int(s.r.objects.Fd()), n.LoosePath(), &st) != nil {
				mu.Lock()
				lost[xx] = true
				mu.Unlock()
			}
			return nil
		})
	}
	for _, list := range [][]object.Name{s.held, s.metas} {
		for _, n := range list {
			if err := look(n); err != nil {
				return lost, err
			}
		}
	}
	if files == nil {
		return lost, nil
	}
	return lost, files(func(_ int, _ string, p Placed) error {
		if !p.Mode.shared() {
			return nil
		}
		return look(object.Name{Checksum: p.Checksum, Type: object.TypeFile})
	})
}
