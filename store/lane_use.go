package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// LaneUse is what the lanes of a repository cost.
type LaneUse struct {
	Lanes  int64 // lane files
	Unused int64 // of them, those that no tree uses
	Bytes  int64 // blocks that they take, and that no object has
}

// LaneUse looks at all lanes. When ctx ends, what it has counted until then comes with the error.
func (r *Repo) LaneUse(ctx context.Context) (LaneUse, error) {
	var u LaneUse
	f, err := r.root.features()
	if err != nil {
		return u, fmt.Errorf("count lanes: %w", err)
	}
	seen := map[uint64]bool{}
	err = r.root.eachLane(func(path string) error {
		var st unix.Stat_t
		if lstat(int(r.root.lanes.Fd()), path, &st) != nil {
			return ctx.Err() // gone meanwhile
		}
		u.Lanes++
		if st.Nlink == 1 {
			u.Unused++
		}
		u.Bytes += r.root.laneBlocks(path, &st, f.Reflink, seen)
		return ctx.Err()
	})
	if err != nil {
		return u, fmt.Errorf("count lanes: %w", err)
	}
	return u, nil
}

// laneBlocks is what a lane takes besides its object, in bytes. Seen are the places on the device of extents that lanes
// share among themselves alone: they count once.
func (r *root) laneBlocks(path string, st *unix.Stat_t, reflink bool, seen map[uint64]bool) int64 {
	switch {
	case !reflink:
		return st.Blocks * 512
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return min(st.Blocks*512, st.Size) // beside the inode, whatever btrfs says of blocks
	}
	own, err := r.laneExtents(int(r.lanes.Fd()), path)
	if err != nil {
		return st.Blocks * 512
	}
	var sum int64
	var known map[uint64]bool // places of the object's
	for _, e := range own {
		switch {
		case e.flags&extentInline != 0:
			sum += st.Size
			continue
		case e.flags&extentShared == 0:
			sum += int64(e.length)
			continue
		}
		if known == nil {
			known = r.objectExtents(path)
		}
		if !known[e.physical] && !seen[e.physical] {
			seen[e.physical] = true
			sum += int64(e.length)
		}
	}
	return sum
}

// objectExtents are the places of the blocks of a lane's object.
func (r *root) objectExtents(lane string) map[uint64]bool {
	places := map[uint64]bool{}
	id, err := parseLane(lane)
	if err != nil {
		return places
	}
	list, err := r.laneExtents(int(r.objects.Fd()), object.Name{Checksum: id.sum, Type: object.TypeFile}.LoosePath())
	if err != nil {
		return places
	}
	for _, e := range list {
		places[e.physical] = true
	}
	return places
}

// An extent is a piece of a file on the device.
type extent struct {
	physical, length uint64
	flags            uint32
}

// The ioctl FS_IOC_FIEMAP, the sizes of its structures, and flags: of the file, written out first, and of extents, the last
// one, inside an inode, and in more than one file.
const (
	fiemapIoctl  = 0xc020660b
	fiemapHeader = 32
	fiemapExtent = 56
	fiemapCount  = 64
	fiemapSync   = 0x1
	extentLast   = 0x1
	extentInline = 0x200
	extentShared = 0x2000
)

func (r *root) laneExtents(dir int, path string) (list []extent, err error) {
	fd, err := openRead(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, fiemapHeader+fiemapCount*fiemapExtent)
	for start := uint64(0); ; {
		clear(buf)
		binary.NativeEndian.PutUint64(buf, start)
		binary.NativeEndian.PutUint64(buf[8:], ^uint64(0)-start)
		binary.NativeEndian.PutUint32(buf[16:], fiemapSync)
		binary.NativeEndian.PutUint32(buf[24:], fiemapCount)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fiemapIoctl, uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
			return nil, errno
		}
		n := int(binary.NativeEndian.Uint32(buf[20:]))
		for i := range n {
			b := buf[fiemapHeader+i*fiemapExtent:]
			e := extent{binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint32(b[40:])}
			list = append(list, e)
			start = binary.NativeEndian.Uint64(b) + e.length
			if e.flags&extentLast != 0 {
				return list, nil
			}
		}
		if n == 0 {
			return list, nil
		}
	}
}
