// Command vm is the first process of a virtual machine that hack/soak-vm starts. It pulls and removes an image on a device whose writes
// the kernel logs (dm-log-writes), then makes the disk anew as it was after each flush, mounts it, opens the store and verifies it.
//
// Outside of such a machine it does nothing but say so.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names that the script and this program agree on.
const (
	dataDisk = "/dev/vda" // the filesystem, as mkfs left it
	logDisk  = "/dev/vdb" // what was written to it
	passed   = "SOAK-VM PASSED"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "vm: this is the first process of the machine that hack/soak-vm starts")
		os.Exit(2)
	}
	err := boot()
	if err == nil {
		err = soak()
	}
	if err != nil {
		fmt.Println("SOAK-VM FAILED:", err)
	} else {
		fmt.Println(passed)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// boot mounts what a system has and loads the kernel's modules.
func boot() error {
	for _, m := range [][3]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}} {
		if err := errors.Join(os.MkdirAll(m[1], 0o755), unix.Mount(m[0], m[1], m[0], 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(int(console.Fd()), fd, 0); err != nil {
			return err
		}
	}
	if err := os.Setenv("PATH", "/bin"); err != nil {
		return err
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open(filepath.Join("/modules", name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// soak does it all.
func soak() error {
	kind, err := kindOf(dataDisk)
	if err != nil {
		return err
	}
	fmt.Println("filesystem:", kind)
	initial, err := copyDisk(dataDisk, "/tmp/disk")
	if err != nil {
		return err
	}
	defer initial.Close()
	l, err := startLog(dataDisk, logDisk)
	if err != nil {
		return err
	}
	if err := record(l, kind); err != nil {
		return err
	}
	if err := l.stop(); err != nil {
		return err
	}
	began := time.Now()
	points, err := replay(logDisk, initial, func(past []string) error { return verify("/tmp/disk", kind, past) })
	fmt.Printf("%d prefixes verified in %v\n", points, time.Since(began).Round(time.Second))
	if err == nil && points < 20 {
		err = fmt.Errorf("only %d flushes were logged", points)
	}
	return err
}

// kindOf tells which filesystem is on a disk.
func kindOf(disk string) (string, error) {
	var b [2048]byte
	f, err := os.Open(disk)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Read(b[:]); err != nil {
		return "", err
	}
	if string(b[:4]) == "XFSB" {
		return "xfs", nil
	}
	return "ext4", nil
}
