// Lanes: an object may own several inodes, one for each time that files with its content have, and more where one root
// holds the same file twice. A lane is named by (checksum, time, n). The object's own file is lane 0 of its own time and
// never changes its inode or its time. All other lanes are files below extensions/ostree-storage/lanes; one with a
// single link is used by no tree and may be deleted at any time.
//
// A lane may be used in a tree if its inode is in no ancestor's tree and not yet in this one. An inode near the
// filesystem's link limit is left alone: the lane's name goes over to a new inode (for the object's own lane: to a lane
// file of that name), and the old one lives on in the trees that have it.

package store

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A spot is where an inode was found that may be linked.
type spot struct {
	dir     int
	name    string
	ino     uint64 // 0: nothing was found
	file    bool   // it is a lane file of this repository
	foreign bool   // it is in another repository, or another stage
	open    bool   // it has no name: dir is the inode itself
	clone   bool   // nothing was found, but the object is there to clone
}

// laneHash mixes what a lane is named by. Two files with one hash only skip lanes that they need not skip.
func laneHash(c object.Checksum, t Time) uint64 {
	h := binary.LittleEndian.Uint64(c[:]) ^ uint64(t.Sec)*0x9e3779b97f4a7c15
	return h ^ uint64(t.Nsec)*0xd6e8feb86659fd93
}

// laneTime is the time that lanes are named by.
func (s *Stage) laneTime(t Time) Time {
	if s.o.SharedTimes {
		return noTime
	}
	return t
}

// claim hands out the lane numbers of a file to the workers of this stage, each number once.
func (s *Stage) claim(it *item) uint32 {
	key := laneHash(it.sum, s.laneTime(it.time))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch(it.sum[0])
	return s.claims.next(key)
}

// watch notes the state of objects/xx before the first look into it. The caller holds s.mu.
func (s *Stage) watch(xx byte) {
	p := &s.prefixes[xx]
	if p.seen {
		return
	}
	p.seen = true
	var st unix.Stat_t
	if lstat(int(s.r.objects.Fd()), hexByte(xx), &st) == nil {
		p.changed, p.settled = since(&st, time.Now())
	}
}

func hexByte(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&15]})
}

// look finds lane n of the file, here or in another repository.
func (s *Stage) look(it *item, n uint32) (spot, error) {
	var st unix.Stat_t
	objects := int(s.r.objects.Fd())
	path := object.Name{Checksum: it.sum, Type: object.TypeFile}.LoosePath()
	switch err := lstat(objects, path, &st); err {
	case nil:
	case unix.ENOENT:
		return s.lookElsewhere(it), nil
	default:
		return spot{}, placeError("look for", path, err)
	}
	sound := it.fits(&st)
	if n == 0 && sound && s.isOpen(&st, it) {
		return spot{dir: objects, name: path, ino: st.Ino}, nil
	}
	lane := laneID{sum: it.sum, time: s.laneTime(it.time), n: n}.path()
	switch err := lstat(int(s.r.lanes.Fd()), lane, &st); err {
	case nil:
		if it.fits(&st) && !s.full(&st) {
			return spot{dir: int(s.r.lanes.Fd()), name: lane, ino: st.Ino, file: true}, nil
		}
	case unix.ENOENT:
	default:
		return spot{}, placeError("look for", lane, err)
	}
	if at := s.lookElsewhere(it); at.ino != 0 {
		return at, nil
	}
	return spot{clone: sound}, nil
}

// lookElsewhere finds an inode in one of the other repositories that this stage has not seen yet.
func (s *Stage) lookElsewhere(it *item) spot {
	path := object.Name{Checksum: it.sum, Type: object.TypeFile}.LoosePath()
	for _, r := range s.near {
		var st unix.Stat_t
		if lstat(int(r.objects.Fd()), path, &st) != nil {
			continue
		}
		if it.fits(&st) && s.isOpen(&st, it) && s.free(st.Ino) {
			return spot{dir: int(r.objects.Fd()), name: path, ino: st.Ino, foreign: true}
		}
		if r.lanes == nil {
			continue
		}
		for n := range uint32(8) {
			lane := laneID{sum: it.sum, time: s.laneTime(it.time), n: n}.path()
			if err := lstat(int(r.lanes.Fd()), lane, &st); err != nil {
				if n == 0 {
					continue // lane 0 may be the object itself
				}
				break
			}
			if it.fits(&st) && !s.full(&st) && s.free(st.Ino) {
				return spot{dir: int(r.lanes.Fd()), name: lane, ino: st.Ino, foreign: true}
			}
		}
	}
	return spot{}
}

// fits tells if an inode looks like the file: a damaged object is never linked.
func (it *item) fits(st *unix.Stat_t) bool {
	size := it.size
	if it.header.Mode&unix.S_IFMT == unix.S_IFLNK {
		size = int64(len(it.header.Target))
	}
	return st.Mode == it.header.Mode && st.Uid == it.header.UID && st.Gid == it.header.GID && st.Size == size
}

// isOpen tells if an object's own inode is the lane that is wanted, and can take another link.
func (s *Stage) isOpen(st *unix.Stat_t, it *item) bool {
	return (s.o.SharedTimes || timeOf(st) == it.time) && !s.full(st)
}

func (s *Stage) full(st *unix.Stat_t) bool {
	return s.features.LinkMax != 0 && uint64(st.Nlink)+linkSlack >= s.features.LinkMax
}

// take reserves an inode for this tree, unless it or an ancestor has it already.
func (s *Stage) take(ino uint64, n uint32) bool {
	if s.avoid.has(ino) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used.has(ino) {
		return false
	}
	s.used.set(ino, n)
	return true
}

// release gives back what take reserved.
func (s *Stage) release(ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.delete(ino)
}

// free tells if take would succeed.
func (s *Stage) free(ino uint64) bool {
	if s.avoid.has(ino) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.used.has(ino)
}

// avoid answers whether an ancestor's tree has an inode. Deep chains are merged into one list at the first question.
type avoid struct {
	lists []*Inodes
	once  sync.Once
	all   []uint64
}

// mergeFrom is the length of chain from which one merged list is quicker than each ancestor's own.
const mergeFrom = 5

func (a *avoid) has(ino uint64) bool {
	if len(a.lists) < mergeFrom {
		return slices.ContainsFunc(a.lists, func(l *Inodes) bool { return l.Contains(ino) })
	}
	a.once.Do(func() {
		for _, l := range a.lists {
			a.all = l.appendTo(a.all)
		}
		slices.Sort(a.all)
		a.all = slices.Compact(a.all)
	})
	_, ok := slices.BinarySearch(a.all, ino)
	return ok
}
