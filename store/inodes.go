package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// An inode list is one file, little-endian:
//
//	magic      8 bytes  "OSinode1"
//	tree       u64      inode number of the tree's directory
//	count      u64      inodes
//	filed      u64      those of them that have a lane file
//	crc        u32      CRC-32C of all that follows
//	reserved   u32      0
//	inos       count * u64, ascending
//	lanes      count * u32
//	files      filed * { sum 32, seconds i64, inode u64, nanoseconds u32, lane u32 }, by inode
//
// It is derived from the tree but for the lane numbers, and may be lost.
const (
	inodesMagic  = "OSinode1"
	inodesHeader = 40
	filedSize    = 56
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// LaneUnknown is the lane of an inode whose list was lost and made again from the tree.
const LaneUnknown = ^uint32(0)

// Inodes is the list of the inodes that one tree shares with the repository. It may be used by several goroutines.
type Inodes struct {
	b      []byte // the whole file
	count  int
	filed  int
	mapped bool
}

// WriteInodes writes the list of the inodes that tree shares with the repository, for later layers to avoid. It is
// called after Publish. The file must not exist; it is durable with the next SyncNames.
func (s *Stage) WriteInodes(path string, tree *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: tree.Name(), Err: err}
	}
	b := encodeInodes(st.Ino, &s.used, s.filed)
	fd, err := s.r.disk.create(unix.AT_FDCWD, path, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	err = writeAll(fd, b, 0)
	if err == nil {
		err = s.r.disk.writeOut(fd)
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func encodeInodes(tree uint64, used *lanesInUse, filed map[uint64]laneID) []byte {
	inos := used.inodes()
	slices.Sort(inos)
	b := make([]byte, inodesHeader, inodesHeader+12*len(inos)+filedSize*len(filed))
	copy(b, inodesMagic)
	le := binary.LittleEndian
	le.PutUint64(b[8:], tree)
	le.PutUint64(b[16:], uint64(len(inos)))
	for _, ino := range inos {
		b = le.AppendUint64(b, ino)
	}
	for _, ino := range inos {
		b = le.AppendUint32(b, used.lane(ino))
	}
	n := uint64(0)
	for _, ino := range inos {
		id, ok := filed[ino]
		if !ok {
			continue
		}
		n++
		b = append(b, id.sum[:]...)
		b = le.AppendUint64(b, uint64(id.time.Sec))
		b = le.AppendUint64(b, ino)
		b = le.AppendUint32(b, id.time.Nsec)
		b = le.AppendUint32(b, id.n)
	}
	le.PutUint64(b[24:], n)
	le.PutUint32(b[32:], crc32.Checksum(b[inodesHeader:], castagnoli))
	return b
}

// OpenInodes opens a list. If it is missing, damaged, or belongs to another directory than tree, as after a restore from
// a backup, it is made again by walking tree; lanes are then unknown.
func OpenInodes(path, tree string) (*Inodes, error) {
	var st unix.Stat_t
	if err := unix.Stat(tree, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: tree, Err: err}
	}
	l, err := mapInodes(path)
	if err == nil {
		if binary.LittleEndian.Uint64(l.b[8:]) == st.Ino {
			return l, nil
		}
		err = errors.Join(errStale, l.Close())
	}
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errStale) {
		return nil, err
	}
	return rebuildInodes(path, tree)
}

// errStale says that an inode list does not describe its tree.
var errStale = errors.New("inode list is stale")

// mapInodes maps a list and checks that it is whole.
func mapInodes(path string) (*Inodes, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < inodesHeader || st.Size() > 1<<40 {
		return nil, fmt.Errorf("read %s: %w", path, errStale)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "map", Path: path, Err: err}
	}
	l := &Inodes{b: b, mapped: true}
	if err := l.parse(); err != nil {
		l.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return l, nil
}

func (l *Inodes) parse() error {
	le := binary.LittleEndian
	n, filed := le.Uint64(l.b[16:]), le.Uint64(l.b[24:])
	size := uint64(len(l.b) - inodesHeader)
	if string(l.b[:8]) != inodesMagic || n > size/12 || filed > size/filedSize || n*12+filed*filedSize != size ||
		le.Uint32(l.b[32:]) != crc32.Checksum(l.b[inodesHeader:], castagnoli) {
		return errStale
	}
	l.count, l.filed = int(n), int(filed)
	return nil
}

func (l *Inodes) ino(i int) uint64 {
	return binary.LittleEndian.Uint64(l.b[inodesHeader+8*i:])
}

// find returns where ino is or would be.
func (l *Inodes) find(ino uint64) (int, bool) {
	return sort.Find(l.count, func(i int) int { return cmp.Compare(ino, l.ino(i)) })
}

// Contains tells if the tree uses the inode.
func (l *Inodes) Contains(ino uint64) bool {
	if l.count == 0 || ino < l.ino(0) || ino > l.ino(l.count-1) {
		return false
	}
	_, ok := l.find(ino)
	return ok
}

// Lane returns the lane of an inode that the tree uses.
func (l *Inodes) Lane(ino uint64) (uint32, bool) {
	i, ok := l.find(ino)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint32(l.b[inodesHeader+8*l.count+4*i:]), true
}

// Len returns how many inodes are listed.
func (l *Inodes) Len() int { return l.count }

// Close releases the list.
func (l *Inodes) Close() error {
	b := l.b
	l.b, l.count, l.filed = nil, 0, 0
	if !l.mapped || b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// appendTo appends all inode numbers to a slice.
func (l *Inodes) appendTo(all []uint64) []uint64 {
	for i := range l.count {
		all = append(all, l.ino(i))
	}
	return all
}

// lane returns the i-th of the inodes that have a lane file.
func (l *Inodes) lane(i int) (ino uint64, id laneID) {
	b := l.b[inodesHeader+12*l.count+filedSize*i:]
	le := binary.LittleEndian
	id.sum = object.Checksum(b[:32])
	id.time = Time{int64(le.Uint64(b[32:])), le.Uint32(b[48:])}
	id.n = le.Uint32(b[52:])
	return le.Uint64(b[40:]), id
}
