package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A root is an open repository directory, shared by the Repo and its parts.
type root struct {
	path     string
	label    string // store label without NUL
	readOnly bool
	disk     disk

	dir     *os.File // the repository
	objects *os.File
	heads   *os.File // refs/heads
	lanes   *os.File // nil if there is no extension directory: a foreign repository open for reading

	probes  probes
	flights flights
	counted counted
	series  series
	journal journal
}

func (r *root) fd() int { return int(r.dir.Fd()) }

// openRoot opens the directories of a repository.
func openRoot(path string, readOnly bool) (*root, error) {
	r := &root{path: path, readOnly: readOnly, disk: kernel{}}
	open := func(name string, f **os.File) error {
		d, err := os.OpenFile(path+"/"+name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		*f = d
		return err
	}
	err := errors.Join(open(".", &r.dir), open("objects", &r.objects), open(headsDir, &r.heads))
	if err == nil {
		if err = open(lanesDir, &r.lanes); readOnly && errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return r, nil
}

func (r *root) close() error {
	errs := []error{r.closeIndex()}
	for _, f := range []*os.File{r.dir, r.objects, r.heads, r.lanes} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// writable is the first thing that each changing call asks.
func (r *root) writable() error {
	if r.readOnly {
		return fmt.Errorf("change %s: %w", r.path, ErrReadOnly)
	}
	return nil
}

// bump sets the repository directory's time, as libostree does after each change of refs, for those who watch it.
func (r *root) bump() error {
	now := time.Now()
	tv := []unix.Timeval{unix.NsecToTimeval(now.UnixNano()), unix.NsecToTimeval(now.UnixNano())}
	if err := unix.Futimes(r.fd(), tv); err != nil {
		return fmt.Errorf("set the time of %s: %w", r.path, err)
	}
	return nil
}

// makeDirs makes the directories of a path relative to the repository, except the last part.
func (r *root) makeDirs(path string) error {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		if err := r.disk.mkdir(r.fd(), path[:i]); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make %s: %w", path[:i], err)
		}
	}
	return nil
}

// link links into a directory of the repository, making the two-digit directory that is the first part of to if need be.
func (r *root) link(fromDir int, from string, toDir int, to string) error {
	err := r.disk.link(fromDir, from, toDir, to)
	if err != unix.ENOENT {
		return err
	}
	if err := r.disk.mkdir(toDir, to[:2]); err != nil && err != unix.EEXIST {
		return err
	}
	return r.disk.link(fromDir, from, toDir, to)
}
