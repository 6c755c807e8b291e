package store

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A wordTable is a hash table of 64-bit words outside of Go's heap, where the garbage collector would keep room for it twice. Of a
// word the bits in mask are the key, which is not 0; what is in the others is the caller's.
type wordTable struct {
	mask  uint64
	slots []uint64 // 0 is free; the number is a power of two
	taken int      // slots that are not free, the dead ones too
}

// deadWord marks a slot whose word was removed, over which a search goes on. It is no key.
const deadWord = ^uint64(0)

// minWords is how many slots a table begins with.
const minWords = 1 << 9

// mapWords returns n free slots.
func mapWords(n int) []uint64 {
	b, err := unix.Mmap(-1, 0, n*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]uint64, n)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func unmapWords(s []uint64) {
	if len(s) > 0 {
		b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*8)
		_ = unix.Munmap(b) // fails where they came from the heap, which needs no more
	}
}

// free gives the memory back; the table is empty then.
func (t *wordTable) free() {
	unmapWords(t.slots)
	t.slots, t.taken = nil, 0
}

// find returns the slot of a key, or nil.
func (t *wordTable) find(key uint64) *uint64 {
	if len(t.slots) == 0 {
		return nil
	}
	for i := t.first(key); t.slots[i] != 0; i = (i + 1) & (len(t.slots) - 1) {
		if w := t.slots[i]; w&t.mask == key && w != deadWord {
			return &t.slots[i]
		}
	}
	return nil
}

func (t *wordTable) first(key uint64) int {
	h := key * 0x9e3779b97f4a7c15
	return int(h>>32) & (len(t.slots) - 1)
}

// add puts in a word whose key is not there.
func (t *wordTable) add(word uint64) {
	if (t.taken+1)*4 > len(t.slots)*3 {
		t.grow()
	}
	i := t.first(word & t.mask)
	for t.slots[i] != 0 {
		i = (i + 1) & (len(t.slots) - 1)
	}
	t.slots[i] = word
	t.taken++
}

// remove takes a slot's word out.
func (t *wordTable) remove(slot *uint64) { *slot = deadWord }

func (t *wordTable) grow() {
	old, live := t.slots, 0
	for _, w := range old {
		if w != 0 && w != deadWord {
			live++
		}
	}
	size := max(len(old), minWords)
	if live*2 > size {
		size *= 2
	}
	t.slots, t.taken = mapWords(size), 0
	for _, w := range old {
		if w != 0 && w != deadWord {
			t.add(w)
		}
	}
	unmapWords(old)
}

// each visits all words.
func (t *wordTable) each(visit func(word uint64)) {
	for _, w := range t.slots {
		if w != 0 && w != deadWord {
			visit(w)
		}
	}
}

// laneCounts hands out the lanes of files by a hash of what names them: per hash, how many were asked for.
type laneCounts struct {
	table wordTable         // 48 bits of hash, and 16 of the count
	many  map[uint64]uint32 // counts that do not fit
}

const (
	countShift = 48
	countMax   = 1<<16 - 1
	countKey   = 1<<countShift - 1
)

// next returns how often it was called with that hash before.
func (l *laneCounts) next(hash uint64) uint32 {
	l.table.mask = countKey
	key := (hash ^ hash>>countShift) & countKey
	if key == 0 {
		key = 1
	}
	slot := l.table.find(key)
	if slot == nil {
		l.table.add(key | 1<<countShift)
		return 0
	}
	n := uint32(*slot >> countShift)
	if n < countMax-1 { // all ones would be a dead word
		*slot += 1 << countShift
		return n
	}
	if l.many == nil {
		l.many = make(map[uint64]uint32)
	}
	n += l.many[key]
	l.many[key]++
	return n
}

// lanesInUse are the inodes of a tree that are shared, with their lanes.
type lanesInUse struct {
	zero  wordTable         // of lane 0, which nearly all are
	other map[uint64]uint32 // of the others
}

func (l *lanesInUse) has(ino uint64) bool {
	if _, ok := l.other[ino]; ok {
		return true
	}
	return l.zero.find(ino) != nil
}

// set notes an inode.
func (l *lanesInUse) set(ino uint64, n uint32) {
	l.zero.mask = ^uint64(0)
	l.delete(ino)
	if n == 0 && ino != 0 && ino != deadWord {
		l.zero.add(ino)
		return
	}
	if l.other == nil {
		l.other = make(map[uint64]uint32)
	}
	l.other[ino] = n
}

func (l *lanesInUse) delete(ino uint64) {
	delete(l.other, ino)
	if slot := l.zero.find(ino); slot != nil {
		l.zero.remove(slot)
	}
}

// lane returns the lane of an inode that is there.
func (l *lanesInUse) lane(ino uint64) uint32 { return l.other[ino] }

// inodes returns all of them in no order.
func (l *lanesInUse) inodes() []uint64 {
	n := len(l.other)
	l.zero.each(func(uint64) { n++ })
	out := make([]uint64, 0, n)
	for ino := range l.other {
		out = append(out, ino)
	}
	l.zero.each(func(ino uint64) { out = append(out, ino) })
	return out
}
