package layers

import (
	"hash/maphash"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A region is memory outside of Go's heap, for what lives as long as one ingest: the garbage collector would keep room for it twice. A nil
// region takes from the heap.
type region struct {
	maps [][]byte
	rest []byte
}

// regionSize is how much a region asks the kernel for at once.
const regionSize = 1 << 20

// take returns n zero bytes, aligned for any type. n is at most regionSize.
func (r *region) take(n int) []byte {
	if r == nil {
		return make([]byte, n)
	}
	n = (n + 63) &^ 63
	if len(r.rest) < n {
		m, err := unix.Mmap(-1, 0, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return make([]byte, n)
		}
		r.maps, r.rest = append(r.maps, m), m
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// free gives the memory back. Nothing that was taken may be used any more.
func (r *region) free() {
	for _, m := range r.maps {
		_ = unix.Munmap(m) // fails only if it is no mapping
	}
	r.maps, r.rest = nil, nil
}

// slabSize is how many items a slab allocates at once.
const slabSize = 1024

// A slab is a growing array whose items never move. T has no pointers.
type slab[T any] struct {
	from   *region
	chunks []*[slabSize]T
	n      uint32
}

// add appends a zero item.
func (s *slab[T]) add() (uint32, *T) {
	if s.n%slabSize == 0 {
		var zero [slabSize]T
		b := s.from.take(int(unsafe.Sizeof(zero)))
		s.chunks = append(s.chunks, (*[slabSize]T)(unsafe.Pointer(unsafe.SliceData(b))))
	}
	id := s.n
	s.n++
	return id, s.at(id)
}

func (s *slab[T]) at(id uint32) *T { return &s.chunks[id/slabSize][id%slabSize] }

// A textRef32 is where a text begins in a textArena.
type textRef32 uint32

const (
	arenaBits = 16 // a chunk of an arena is 64 KiB, and an arena at most 4 GiB
	arenaSize = 1 << arenaBits
)

// A textArena keeps short texts without an allocation for each.
type textArena struct {
	from   *region
	chunks [][]byte
	used   int // of the last chunk
}

// add keeps a text of at most arenaSize bytes.
func (a *textArena) add(s string) textRef32 {
	if len(s) == 0 {
		return 0
	}
	if len(a.chunks) == 0 || a.used+len(s) > arenaSize {
		a.chunks, a.used = append(a.chunks, a.from.take(arenaSize)), 0
	}
	last := len(a.chunks) - 1
	at := a.used
	a.used += copy(a.chunks[last][at:], s)
	return textRef32(last<<arenaBits | at)
}

// get returns a copy of a text: errors keep names for longer than the arena's memory is there.
func (a *textArena) get(r textRef32, n int) string { return string(a.view(r, n)) }

// view returns a text in the arena's memory.
func (a *textArena) view(r textRef32, n int) []byte {
	if n == 0 {
		return nil
	}
	at := int(r & (arenaSize - 1))
	return a.chunks[r>>arenaBits][at : at+n]
}

// A nameIndex finds nodes by directory and name: an open hash table of node ids with linear probing.
type nameIndex struct {
	seed  maphash.Seed // random, so that nobody can make a tar of colliding names
	table []nodeID
	used  int // entries that are not noNode
}

// deadNode marks a removed entry, over which a search goes on.
const deadNode = ^nodeID(0)

func (x *nameIndex) init() {
	x.seed = maphash.MakeSeed()
	x.table = make([]nodeID, 64)
}

func (x *nameIndex) slot(dir nodeID, name string) int {
	return x.mix(dir, maphash.String(x.seed, name))
}

func (x *nameIndex) slotOf(dir nodeID, name []byte) int {
	return x.mix(dir, maphash.Bytes(x.seed, name))
}

func (x *nameIndex) mix(dir nodeID, h uint64) int {
	h ^= uint64(dir) * 0x9e3779b97f4a7c15
	h ^= h >> 32
	return int(h) & (len(x.table) - 1)
}

func (x *nameIndex) find(t *layerTree, dir nodeID, name string) nodeID {
	for i := x.slot(dir, name); ; i = (i + 1) & (len(x.table) - 1) {
		id := x.table[i]
		if id == noNode {
			return noNode
		}
		if id != deadNode && t.node(id).parent == dir && string(t.nameView(id)) == name {
			return id
		}
	}
}

func (x *nameIndex) insert(t *layerTree, id nodeID) {
	if (x.used+1)*4 > len(x.table)*3 {
		x.grow(t)
	}
	x.place(t, id)
}

func (x *nameIndex) place(t *layerTree, id nodeID) {
	i := x.slotOf(t.node(id).parent, t.nameView(id))
	for x.table[i] != noNode {
		i = (i + 1) & (len(x.table) - 1)
	}
	x.table[i] = id
	x.used++
}

func (x *nameIndex) remove(t *layerTree, id nodeID) {
	for i := x.slotOf(t.node(id).parent, t.nameView(id)); x.table[i] != noNode; i = (i + 1) & (len(x.table) - 1) {
		if x.table[i] == id {
			x.table[i] = deadNode
			return
		}
	}
}

// grow makes room; a table that is full of removed entries only loses those.
func (x *nameIndex) grow(t *layerTree) {
	old, size := x.table, len(x.table)
	if t.count*2 > int64(size) {
		size *= 2
	}
	x.table, x.used = make([]nodeID, size), 0
	for _, id := range old {
		if id != noNode && id != deadNode {
			x.place(t, id)
		}
	}
}
