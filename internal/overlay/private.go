package overlay

import (
	"fmt"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on a thread with the namespaces or attributes of flags unshared. The thread ends with f, and
// with it what only it had.
func onOwnThread(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and /proc/self speaks of it: keep it occupied meanwhile.
			defer runtime.UnlockOSThread()
			done <- onOwnThread(flags, f)
			return
		}
		// No unlocking: that makes the runtime end the thread.
		if err := unix.Unshare(flags); err != nil {
			done <- &stepError{step: stepAttach, what: "unshare a thread", err: err}
			return
		}
		done <- f()
	}()
	return <-done
}

// buildPrivate builds the mount in a mount namespace of its own, where the detached lowers are attached to a tmpfs
// over the target. The namespace dies with its thread, also in a crash; the mount that is returned is in none.
func (p *plan) buildPrivate(w way) (int, error) {
	mnt := -1
	err := onOwnThread(unix.CLONE_NEWNS, func() (err error) {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return &stepError{step: stepAttach, what: "make a mount namespace private", err: err}
		}
		s := &scratch{}
		defer s.close()
		if err := p.attachLowers(s); err != nil {
			return err
		}
		if w.api == apiMount {
			mnt, err = p.mountScratch(s)
		} else {
			mnt, err = p.build(w, s.eachLower)
		}
		return err
	})
	return mnt, err
}

// A scratch is what a private mount namespace holds while a mount is built in it.
type scratch struct {
	root   int // a tmpfs; 0, which is always taken, before it is there
	lowers []int
	of     []lower // what lowers are of
}

func (s *scratch) close() {
	for _, fd := range append(s.lowers, s.root) {
		if fd > 0 {
			unix.Close(fd)
		}
	}
}

func (s *scratch) eachLower(f func(dir int, l lower) error) error {
	for i, dir := range s.lowers {
		if err := f(dir, s.of[i]); err != nil {
			return err
		}
	}
	return nil
}

// attachLowers opens every lower, and attaches their clones to a tmpfs over the target.
func (p *plan) attachLowers(s *scratch) error {
	c := p.newClones()
	defer c.close()
	for _, l := range p.lowers {
		dir, err := c.open(l)
		if err != nil {
			return err
		}
		s.lowers, s.of = append(s.lowers, dir), append(s.of, l)
	}
	if err := p.openScratch(s); err != nil {
		return err
	}
	for i, mnt := range c.mounts {
		name := strconv.Itoa(i)
		if err := unix.Mkdirat(s.root, name, 0o755); err != nil {
			return fmt.Errorf("make a mount point on a tmpfs: %w", err)
		}
		if err := unix.MoveMount(mnt, "", s.root, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return &stepError{step: stepAttach, what: "attach a clone", err: err}
		}
	}
	return nil
}

func (p *plan) openScratch(s *scratch) error {
	c, err := openContext("tmpfs")
	if err != nil {
		return err
	}
	defer c.close()
	root, err := c.create(0)
	if err != nil {
		return err
	}
	s.root = root
	return p.attach(root)
}

// mountScratch makes the mount with mount(2) on the tmpfs and returns a detached clone of it.
func (p *plan) mountScratch(s *scratch) (int, error) {
	const name = "mount"
	if err := unix.Mkdirat(s.root, name, 0o755); err != nil {
		return -1, fmt.Errorf("make a mount point on a tmpfs: %w", err)
	}
	point, err := unix.Openat(s.root, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a mount point on a tmpfs: %w", err)
	}
	defer unix.Close(point)
	if err := p.mountNumbers(s.lowers, linkName(point)); err != nil {
		return -1, err
	}
	mnt, err := unix.OpenTree(s.root, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, &stepError{step: stepAttach, what: "clone the mount", err: err}
	}
	return mnt, nil
}
