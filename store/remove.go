package store

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// removers is how many directories of one tree are emptied at a time: beyond two the journal is what one waits for.
const removers = 2

// maxAgain is how often a directory is emptied that others put something into.
const maxAgain = 100

// A removal deletes one directory tree. What others delete at the same time does not disturb it.
type removal struct {
	disk disk
	top  int           // a directory that deep subdirectories are moved to
	free chan struct{} // tokens for further workers

	mu    sync.Mutex
	moved int
	err   error
}

// removeAll deletes parent/name, which is a directory or nothing.
func (r *root) removeAll(parent, name string) error {
	fd, err := openDir(r.fd(), parent)
	if err != nil {
		return &os.PathError{Op: "open", Path: parent, Err: err}
	}
	defer unix.Close(fd)
	top, err := openDir(fd, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(top)
	x := &removal{disk: r.disk, top: top, free: make(chan struct{}, removers-1)}
	for again := 0; ; again++ {
		x.moved = 0
		x.empty(top, 0)
		if x.err != nil {
			return x.err
		}
		if x.moved > 0 {
			continue
		}
		err := r.disk.removeDir(fd, name)
		if err == unix.ENOTEMPTY && again < maxAgain {
			continue // Recover of another process has looked for the lock and made it again
		}
		if err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "remove", Path: name, Err: err}
		}
		return nil
	}
}

// failed keeps the first error, and tells if there is one.
func (x *removal) failed(name string, err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil && !errors.Is(err, unix.ENOENT) && x.err == nil {
		x.err = &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return x.err != nil
}

// empty deletes all that is in an open directory.
func (x *removal) empty(fd, depth int) {
	entries, err := readDir(fd)
	if x.failed(".", err) {
		return
	}
	var wg sync.WaitGroup
	var locks []string
	defer func() {
		wg.Wait()
		for _, name := range locks {
			if x.failed(name, nil) {
				return
			}
			x.failed(name, x.disk.remove(fd, name))
		}
	}()
	for _, e := range entries {
		name := e.Name()
		if depth == 0 && name == stageLock && !e.IsDir() {
			locks = append(locks, name) // last, so that Recover of another process leaves this alone
			continue
		}
		if !e.IsDir() {
			if x.failed(name, x.disk.remove(fd, name)) {
				return
			}
			continue
		}
		if depth >= maxOpen {
			if x.failed(name, x.lift(fd, name)) {
				return
			}
			continue
		}
		select {
		case x.free <- struct{}{}:
			wg.Add(1)
			go func() {
				defer func() { <-x.free; wg.Done() }()
				x.directory(fd, name, depth)
			}()
		default:
			x.directory(fd, name, depth)
		}
	}
}

// directory deletes a subdirectory.
func (x *removal) directory(fd int, name string, depth int) {
	sub, err := openDir(fd, name)
	if err != nil {
		x.failed(name, err)
		return
	}
	x.empty(sub, depth+1)
	unix.Close(sub)
	if !x.failed(name, nil) {
		x.failed(name, x.disk.removeDir(fd, name))
	}
}

// lift moves a deep subdirectory to the top, where the next round finds it.
func (x *removal) lift(fd int, name string) error {
	x.mu.Lock()
	x.moved++
	to := fmt.Sprintf(".deep-%d-%s", x.moved, randomName())
	x.mu.Unlock()
	return x.disk.rename(fd, name, x.top, to)
}
