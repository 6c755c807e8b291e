package testfs

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attach puts image behind a free loop device, which detaches itself when its
// last user (mount or descriptor) is gone.
func attach(image *os.File) (*os.File, string, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", err, ErrUnsupported)
	}
	defer ctl.Close()
	var last error
	for range 100 {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, "", fmt.Errorf("find a free loop device: %w: %w", err, ErrUnsupported)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			// A /dev that is no devtmpfs does not get the node by itself.
			if err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err == nil || errors.Is(err, unix.EEXIST) {
				loop, err = os.OpenFile(path, os.O_RDWR, 0)
			}
		}
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", err, ErrUnsupported)
		}
		c := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if last = unix.IoctlLoopConfigure(int(loop.Fd()), &c); last == nil {
			return loop, path, nil
		}
		loop.Close()
		if !errors.Is(last, unix.EBUSY) { // busy: another process was faster
			break
		}
	}
	return nil, "", fmt.Errorf("attach %s to a loop device: %w", image.Name(), last)
}

// shutdownIoctl is FS_IOC_SHUTDOWN (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN), and
// noLogFlush its argument that keeps the log in memory from reaching the disk.
const (
	shutdownIoctl = 0x8004587d
	noLogFlush    = 2
)

// Shutdown cuts the power of the filesystem on dir: from now on every operation
// on it fails, and after Remount it holds what was on disk at this moment. Works
// on ext4 and xfs; on btrfs the error matches ErrUnsupported.
func Shutdown(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	flag := uint32(noLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdownIoctl, uintptr(unsafe.Pointer(&flag)))
	if errno == unix.ENOTTY {
		return fmt.Errorf("shut down %s: %w: %w", dir, errno, ErrUnsupported)
	}
	if errno != 0 {
		return fmt.Errorf("shut down %s: %w", dir, errno)
	}
	return nil
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
