package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of the device mapper's ioctls, and the size of their argument (linux/dm-ioctl.h).
const (
	dmCreate   = 3
	dmRemove   = 4
	dmResume   = 6
	dmLoad     = 9
	dmMessage  = 14
	dmArgument = 312
	dmName     = "logged"
)

// A writeLog is a device that logs what is written to it.
type writeLog struct {
	control *os.File
	path    string
}

// startLog makes a device that is disk, and logs to log what it is told to write.
func startLog(disk, log string) (*writeLog, error) {
	size, err := diskSize(disk)
	if err != nil {
		return nil, err
	}
	l := &writeLog{path: "/dev/dm-0"}
	if l.control, err = os.OpenFile("/dev/mapper/control", os.O_RDWR, 0); err != nil {
		return nil, err
	}
	var target bytes.Buffer
	params := disk + " " + log + "\x00"
	for len(params)%8 != 0 {
		params += "\x00"
	}
	_ = binary.Write(&target, binary.LittleEndian, struct {
		Start, Length uint64
		Status        int32
		Next          uint32
		Type          [16]byte
	}{Length: uint64(size / 512), Next: uint32(40 + len(params)), Type: [16]byte([]byte("log-writes\x00\x00\x00\x00\x00\x00"))})
	target.WriteString(params)
	for _, step := range []struct {
		nr, targets uint32
		data        []byte
	}{{dmCreate, 0, nil}, {dmLoad, 1, target.Bytes()}, {dmResume, 0, nil}} {
		if err := l.ioctl(step.nr, step.targets, step.data); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// mark writes a mark into the log, after all that was written before.
func (l *writeLog) mark(text string) error {
	return l.ioctl(dmMessage, 0, append(make([]byte, 8), "mark "+text+"\x00"...))
}

func (l *writeLog) stop() error { return l.ioctl(dmRemove, 0, nil) }

func (l *writeLog) ioctl(nr, targets uint32, data []byte) error {
	b := make([]byte, dmArgument+len(data))
	for i, v := range []uint32{4, 0, 0, uint32(len(b)), dmArgument, targets} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	copy(b[48:], dmName)
	copy(b[dmArgument:], data)
	request := uintptr(3)<<30 | dmArgument<<16 | 0xfd<<8 | uintptr(nr)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, l.control.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return fmt.Errorf("device mapper, call %d: %w", nr, errno)
	}
	return nil
}

func diskSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, 2)
}
