package layers

import (
	"hash/maphash"
	"strings"
)

// slabSize is how many items a slab allocates at once.
const slabSize = 1024

// A slab is a growing array whose items never move.
type slab[T any] struct {
	chunks []*[slabSize]T
	n      uint32
}

// add appends a zero item.
func (s *slab[T]) add() (uint32, *T) {
	if s.n%slabSize == 0 {
		s.chunks = append(s.chunks, new([slabSize]T))
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
type textArena struct{ chunks []*strings.Builder }

// add keeps a text of at most arenaSize bytes.
func (a *textArena) add(s string) textRef32 {
	last := len(a.chunks) - 1
	if last < 0 || a.chunks[last].Len()+len(s) > arenaSize {
		b := new(strings.Builder)
		b.Grow(arenaSize)
		a.chunks = append(a.chunks, b)
		last++
	}
	b := a.chunks[last]
	at := b.Len()
	b.WriteString(s)
	if at == arenaSize { // an empty text at the very end
		at = 0
	}
	return textRef32(last<<arenaBits | at)
}

// get returns a text. Its memory is the arena's.
func (a *textArena) get(r textRef32, n int) string {
	at := int(r & (arenaSize - 1))
	return a.chunks[r>>arenaBits].String()[at : at+n]
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
	h := maphash.String(x.seed, name) ^ uint64(dir)*0x9e3779b97f4a7c15
	h ^= h >> 32
	return int(h) & (len(x.table) - 1)
}

func (x *nameIndex) find(t *layerTree, dir nodeID, name string) nodeID {
	for i := x.slot(dir, name); ; i = (i + 1) & (len(x.table) - 1) {
		id := x.table[i]
		if id == noNode {
			return noNode
		}
		if id != deadNode && t.node(id).parent == dir && t.name(id) == name {
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
	i := x.slot(t.node(id).parent, t.name(id))
	for x.table[i] != noNode {
		i = (i + 1) & (len(x.table) - 1)
	}
	x.table[i] = id
	x.used++
}

func (x *nameIndex) remove(t *layerTree, id nodeID) {
	for i := x.slot(t.node(id).parent, t.name(id)); x.table[i] != noNode; i = (i + 1) & (len(x.table) - 1) {
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
