package store

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// FuzzLane: a lane's name that is taken is the one that the lane has.
func FuzzLane(f *testing.F) {
	for _, l := range []laneID{{}, {time: Time{-5, 7}, n: 3}, {time: noTime, n: 1}} {
		f.Add(l.path())
	}
	f.Fuzz(func(t *testing.T, path string) {
		if l, err := parseLane(path); err == nil && l.path() != path {
			t.Errorf("%q is taken for %q", path, l.path())
		}
	})
}

// FuzzInodes: a list of inodes that is taken can be read to its end, whatever it says.
func FuzzInodes(f *testing.F) {
	var used lanesInUse
	f.Add(encodeInodes(5, &used, nil), true)
	used.set(7, 0)
	used.set(9, 2)
	f.Add(encodeInodes(5, &used, map[uint64]laneID{9: {sum: object.Sum([]byte("x")), n: 2}}), true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if len(b) < inodesHeader {
			return
		}
		if sum { // else nothing but the sum would be tried
			binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[inodesHeader:], castagnoli))
		}
		l := &Inodes{b: b}
		if l.parse() != nil {
			return
		}
		for _, ino := range l.appendTo(nil) {
			l.Contains(ino)
			l.Lane(ino)
		}
		for i := range l.filed {
			_, id := l.lane(i)
			id.path()
		}
	})
}

// FuzzConfig: what a repository's two config files say is read without a panic, and a label comes back as it was.
func FuzzConfig(f *testing.F) {
	f.Add(repoConfig, "system_u:object_r:container_ro_file_t:s0")
	f.Add(labelConfig("x"), "a=b")
	f.Fuzz(func(t *testing.T, text, label string) {
		checkRepoConfig(text)
		parseLabelConfig(text)
		if checkLabel(label) != nil {
			return
		}
		if got, err := parseLabelConfig(labelConfig(label)); err != nil || got != label {
			t.Errorf("label %q comes back as %q (%v)", label, got, err)
		}
	})
}
