package testfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Remount unmounts the filesystem on dir, with everything mounted below it, and
// mounts it again. After Shutdown that is the next boot. It fails if a file
// below dir is open.
//
// A mount namespace that some other process made while we were mounted (that of
// a container of another test) has a copy of our mount, for as long as it likes.
// After Shutdown the device then gives the dead filesystem back. What had
// reached the device is in the image, and so a copy of that is mounted instead.
func Remount(dir string) error {
	f, err := byDir(dir)
	if err != nil {
		return err
	}
	if err := unmountAll(dir, false); err != nil {
		return err
	}
	if err := f.mountDevice(); err != nil {
		return err
	}
	if err := syncDir(dir); !errors.Is(err, unix.EIO) {
		return err
	}
	if err := unmountAll(dir, false); err != nil {
		return err
	}
	if err := f.moveToCopy(); err != nil {
		return fmt.Errorf("copy the image of %s, which another mount namespace holds: %w", dir, err)
	}
	if err := f.mountDevice(); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir fails with EIO on a filesystem that was shut down.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// moveToCopy puts a copy of the image in the place of the image and of its loop device.
func (f *FS) moveToCopy() error {
	oldImage, oldLoop := f.image, f.loop
	image, err := f.makeImage()
	if err != nil {
		return err
	}
	defer os.Remove(image.Name())
	if err := copySparse(image, oldImage); err != nil {
		return err
	}
	if f.loop, f.device, err = attach(image); err != nil {
		return err
	}
	if f.Kind == "xfs" && !strings.Contains(f.mount, "nouuid") { // it mounts one filesystem of a UUID at a time
		f.mount = strings.TrimPrefix(f.mount+",nouuid", ",")
	}
	return errors.Join(oldLoop.Close(), oldImage.Close())
}

// copySparse copies what is no hole.
func copySparse(to, from *os.File) error {
	size, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); ; {
		begin, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole
		}
		if err != nil {
			return err
		}
		if at, err = from.Seek(begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, begin), io.NewSectionReader(from, begin, at-begin)); err != nil {
			return err
		}
	}
}
