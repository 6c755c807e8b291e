package testfs

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Extent is a piece of a file on the device.
type Extent struct {
	Physical, Length uint64 // where it is, in bytes
	Own              bool   // inside the inode, or not placed: nobody can share it
	Inline           bool   // inside the inode
}

// The ioctl FS_IOC_FIEMAP, the sizes of its structures, and flags of extents:
// the last one, inside the inode, and all that have no place of their own
// (unknown, delayed, inline, tail).
const (
	fiemapIoctl  = 0xc020660b
	fiemapHeader = 32
	fiemapExtent = 56
	fiemapCount  = 256
	extentLast   = 0x1
	extentInline = 0x200
	extentOwn    = 0x2 | 0x4 | extentInline | 0x400
)

// Extents says where the content of a file is on the device. What is not written out yet has no place.
func Extents(path string) (list []Extent, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, fiemapHeader+fiemapCount*fiemapExtent)
	for start := uint64(0); ; {
		clear(buf)
		binary.NativeEndian.PutUint64(buf, start)
		binary.NativeEndian.PutUint64(buf[8:], ^uint64(0)-start)
		binary.NativeEndian.PutUint32(buf[24:], fiemapCount)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemapIoctl, uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
			return nil, errno
		}
		n := binary.NativeEndian.Uint32(buf[20:])
		for i := range int(n) {
			e := buf[fiemapHeader+i*fiemapExtent:]
			logical, length, flags := binary.NativeEndian.Uint64(e), binary.NativeEndian.Uint64(e[16:]), binary.NativeEndian.Uint32(e[40:])
			list = append(list, Extent{binary.NativeEndian.Uint64(e[8:]), length, flags&extentOwn != 0, flags&extentInline != 0})
			if flags&extentLast != 0 {
				return list, nil
			}
			start = logical + length
		}
		if n == 0 {
			return list, nil
		}
	}
}
