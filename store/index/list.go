package index

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Key is the first eight bytes of an object's checksum, read as a big-endian number so that keys sort as checksums do.
type Key uint64

// KeyOf returns the key of the object with checksum c.
func KeyOf(c object.Checksum) Key { return Key(binary.BigEndian.Uint64(c[:8])) }

// Both kinds of file begin with eight bytes of magic and the number of their entries; all numbers are little-endian.
const (
	listMagic  = "OSTlist1"
	runMagic   = "OSTrun_1"
	headerSize = 16
)

// AppendList appends the file form of a commit's list to b. It sorts keys and drops duplicates in place.
func AppendList(b []byte, keys []Key) []byte {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	b = appendHeader(b, listMagic, len(keys))
	for _, k := range keys {
		b = binary.LittleEndian.AppendUint64(b, uint64(k))
	}
	return b
}

func appendHeader(b []byte, magic string, n int) []byte {
	return binary.LittleEndian.AppendUint64(append(b, magic...), uint64(n))
}

// keyed is a mapped list or run: n sorted keys, and n counts behind them in a run.
type keyed struct {
	mapped []byte
	keys   []byte
	counts []byte // nil in a list, where each count is one
	n      int
}

// open maps the list or run at path below dir.
func open(dir *os.File, path, magic string) (*keyed, error) {
	fd, err := unix.Openat(int(dir.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Size < headerSize {
		return nil, damaged(path, "too short")
	}
	b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	k, err := parse(b, path, magic)
	if err != nil {
		unix.Munmap(b)
	}
	return k, err
}

func parse(b []byte, path, magic string) (*keyed, error) {
	if string(b[:8]) != magic {
		return nil, damaged(path, "not an index file")
	}
	width := uint64(8)
	if magic == runMagic {
		width = 12
	}
	n := binary.LittleEndian.Uint64(b[8:])
	if n > uint64(len(b)) || headerSize+n*width != uint64(len(b)) {
		return nil, damaged(path, "size and number of entries disagree")
	}
	k := &keyed{mapped: b, n: int(n), keys: b[headerSize : headerSize+8*n]}
	if magic == runMagic {
		k.counts = b[headerSize+8*n:]
	}
	return k, nil
}

// A DamagedError says that a file of the index is not what the index wrote. The index has to be rebuilt.
type DamagedError struct{ Path, Reason string }

func (e *DamagedError) Error() string { return fmt.Sprintf("index file %s: %s", e.Path, e.Reason) }

func damaged(path, reason string) error { return &DamagedError{path, reason} }

func (k *keyed) close() error { return unix.Munmap(k.mapped) }

func (k *keyed) key(i int) Key { return Key(binary.LittleEndian.Uint64(k.keys[8*i:])) }

func (k *keyed) count(i int) int32 {
	if k.counts == nil {
		return 1
	}
	return int32(binary.LittleEndian.Uint32(k.counts[4*i:]))
}

// addTo adds sign times this file's count of each of the sorted keys to sums. Both sides are sorted, so it gallops from
// where the last key was: few keys in a large run cost a logarithm each, many cost one pass.
func (k *keyed) addTo(sums []int32, keys []Key, sign int32) {
	at := 0
	for i, want := range keys {
		at = k.seek(at, want)
		if at == k.n {
			return
		}
		if k.key(at) == want {
			sums[i] += sign * k.count(at)
		}
	}
}

// seek returns the first position at or after from whose key is not less than want.
func (k *keyed) seek(from int, want Key) int {
	step := 1
	low, high := from, from
	for high < k.n && k.key(high) < want {
		low, high = high+1, high+step
		step *= 2
	}
	high = min(high, k.n)
	for low < high {
		middle := int(uint(low+high) / 2)
		if k.key(middle) < want {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
