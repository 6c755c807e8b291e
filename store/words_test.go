package store

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLanesInUseAgainstMap notes and forgets inodes at random and compares with a map.
func TestLanesInUseAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var l lanesInUse
	defer l.zero.free()
	want := map[uint64]uint32{}
	for range 300_000 {
		ino := 1 + rnd.Uint64N(20_000)
		if rnd.IntN(3) == 0 {
			ino = deadWord - ino%4
		}
		switch rnd.IntN(3) {
		case 0:
			l.delete(ino)
			delete(want, ino)
		default:
			n := uint32(rnd.IntN(3))
			l.set(ino, n)
			want[ino] = n
		}
		if _, ok := want[ino]; ok != l.has(ino) || l.lane(ino) != want[ino] {
			t.Fatalf("inode %d: there %v, lane %d; want %v, %d", ino, l.has(ino), l.lane(ino), ok, want[ino])
		}
	}
	got := l.inodes()
	slices.Sort(got)
	if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("%d inodes, want %d", len(got), len(want))
	}
	if len(l.zero.slots) > 1<<17 {
		t.Errorf("a table of at most 20,000 words has %d slots", len(l.zero.slots))
	}
}

// TestLaneCounts asks for so many lanes of one file that the count does not fit beside the key, and for some of others.
func TestLaneCounts(t *testing.T) {
	var l laneCounts
	defer l.table.free()
	for i := range uint32(200_000) {
		if n := l.next(0xfeed_beef_0000_1234); n != i {
			t.Fatalf("call %d: %d", i, n)
		}
		if other := l.next(uint64(i)<<20 | 7); other != 0 {
			t.Fatalf("file %d is asked for the first time and gets %d", i, other)
		}
	}
	for _, hash := range []uint64{0, 0xffff_0000_0000_ffff} { // their keys are 0
		l.next(hash)
	}
}
