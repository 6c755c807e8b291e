package store

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setTime is futimens: access and modification time of an open file. Descriptors that only name a file (O_PATH) need
// the other form, which kernels before 5.8 lack.
func setTime(fd int, t Time) error {
	ts := [2]unix.Timespec{{Sec: t.Sec, Nsec: int64(t.Nsec)}, {Sec: t.Sec, Nsec: int64(t.Nsec)}}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case unix.EBADF:
		return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
	}
	return errno
}

// keepTime runs change, which alters a directory that is finished, and gives the directory its time back.
func keepTime(dir int, change func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return setTime(dir, timeOf(&st))
}
