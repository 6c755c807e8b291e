package store

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// errCut is what a disk returns when the power is gone.
var errCut = errors.New("cut")

// A faulty disk records what it is asked for, and fails from operation number cut on (counting from 1; 0: never) for
// times operations (0: for ever) with err.
type faulty struct {
	disk
	home  string
	cut   int
	times int
	err   error

	mu  sync.Mutex
	n   int
	log []string
}

func (f *faulty) op(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	f.log = append(f.log, fmt.Sprintf(format, args...))
	if f.cut > 0 && f.n >= f.cut && (f.times == 0 || f.n < f.cut+f.times) {
		return f.err
	}
	return nil
}

// at names a path for the trace: relative to home, with boot ids, random names and checksums replaced.
func (f *faulty) at(dir int, name string) string {
	if strings.HasPrefix(name, "/") {
		return f.plain(name)
	}
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir))
	if err != nil {
		return name
	}
	return f.plain(top + "/" + name)
}

var (
	uuidName = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}-[0-9a-f]{16}`)
	longHex  = regexp.MustCompile(`([0-9a-f]{2}/)?[0-9a-f]{62,64}`)
	sealHex  = regexp.MustCompile(`[0-9a-f]{40}`)
	shortHex = regexp.MustCompile(`[0-9a-f]{16}`)
	spareNo  = regexp.MustCompile(`spare-[0-9]+`)
)

func (f *faulty) plain(path string) string {
	path = strings.TrimPrefix(path, f.home+"/")
	path = uuidName.ReplaceAllString(path, "NAME")
	path = longHex.ReplaceAllStringFunc(path, func(s string) string { return s[:min(7, len(s))] })
	path = sealHex.ReplaceAllString(path, "DESCRIPTION")
	path = shortHex.ReplaceAllString(path, "RANDOM")
	return spareNo.ReplaceAllString(path, "spare")
}

func (f *faulty) create(dir int, name string, perm uint32) (int, error) {
	if err := f.op("create %s", f.at(dir, name)); err != nil {
		return -1, err
	}
	return f.disk.create(dir, name, perm)
}

func (f *faulty) mkdir(dir int, name string) error {
	if err := f.op("mkdir %s", f.at(dir, name)); err != nil {
		return err
	}
	return f.disk.mkdir(dir, name)
}

func (f *faulty) symlink(target string, dir int, name string) error {
	if err := f.op("symlink %s -> %s", f.at(dir, name), f.plain(target)); err != nil {
		return err
	}
	return f.disk.symlink(target, dir, name)
}

func (f *faulty) link(fromDir int, from string, toDir int, to string) error {
	if err := f.op("link %s -> %s", f.at(fromDir, from), f.at(toDir, to)); err != nil {
		return err
	}
	return f.disk.link(fromDir, from, toDir, to)
}

func (f *faulty) rename(fromDir int, from string, toDir int, to string) error {
	if err := f.op("rename %s -> %s", f.at(fromDir, from), f.at(toDir, to)); err != nil {
		return err
	}
	return f.disk.rename(fromDir, from, toDir, to)
}

func (f *faulty) remove(dir int, name string) error {
	if err := f.op("remove %s", f.at(dir, name)); err != nil {
		return err
	}
	return f.disk.remove(dir, name)
}

func (f *faulty) removeDir(dir int, name string) error {
	if err := f.op("rmdir %s", f.at(dir, name)); err != nil {
		return err
	}
	return f.disk.removeDir(dir, name)
}

func (f *faulty) stamp(dir int, name string, mtime unix.Timespec) error {
	if err := f.op("stamp %s", f.at(dir, name)); err != nil {
		return err
	}
	return f.disk.stamp(dir, name, mtime)
}

func (f *faulty) sync(fd int) error {
	if err := f.op("sync %s", f.at(fd, "")); err != nil {
		return err
	}
	return f.disk.sync(fd)
}

func (f *faulty) writeOut(fd int) error {
	if err := f.op("write out %s", f.at(fd, "")); err != nil {
		return err
	}
	return f.disk.writeOut(fd)
}

func (f *faulty) syncDir(fd int) error {
	if err := f.op("sync %s", f.at(fd, "")); err != nil {
		return err
	}
	return f.disk.syncDir(fd)
}

func (f *faulty) syncfs(fd int) error {
	if err := f.op("syncfs"); err != nil {
		return err
	}
	return f.disk.syncfs(fd)
}

var _ disk = (*faulty)(nil)

// faults are what a real disk may answer to any call.
var faults = []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMLINK, unix.EXDEV}
