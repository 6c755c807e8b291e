package overlay

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An fsContext is a filesystem being configured before it is mounted.
type fsContext struct{ fd int }

func openContext(filesystem string) (*fsContext, error) {
	fd, err := unix.Fsopen(filesystem, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &stepError{step: stepOpen, what: "open a mount context for " + filesystem, err: err}
	}
	return &fsContext{fd}, nil
}

func (c *fsContext) close() { unix.Close(c.fd) }

// fail wraps err with what the kernel logged in this context since the last error.
func (c *fsContext) fail(at step, what string, err error) error {
	s := &stepError{step: at, what: what, err: err}
	buf := make([]byte, 4096)
	for {
		n, readErr := unix.Read(c.fd, buf) // one message a call, ENODATA at the end
		if readErr != nil || n <= 0 {
			return s
		}
		// A message is "e " (error), "w " or "i ", and its text.
		text := strings.TrimSpace(string(buf[:n]))
		if len(text) > 2 && text[1] == ' ' {
			text = text[2:]
		}
		s.log = append(s.log, text)
	}
}

func (c *fsContext) set(p param) error {
	var err error
	if p.flag {
		err = unix.FsconfigSetFlag(c.fd, p.key)
	} else {
		err = unix.FsconfigSetString(c.fd, p.key, p.value)
	}
	if err != nil {
		return c.fail(stepOption, fmt.Sprintf("set mount option %q", p.text()), err)
	}
	return nil
}

// setDir gives the kernel the open directory dir under the option key. If path is not empty, it names dir as well.
func (c *fsContext) setDir(a api, key string, dir int, path string) error {
	if a == apiFD {
		err := unix.FsconfigSetFd(c.fd, key, dir)
		// The kernel keeps the path for /proc/mounts, and has no room for one of more than 4 KiB.
		if !errors.Is(err, unix.ENAMETOOLONG) {
			return err
		}
	}
	if filepath.IsAbs(path) && len(path) <= maxValue && isPlain(path) {
		// What is in /proc/mounts then means something to others.
		return unix.FsconfigSetString(c.fd, key, path)
	}
	return unix.FsconfigSetString(c.fd, key, linkName(dir))
}

// linkName is a path of an open file that is short and needs no escaping.
func linkName(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// create makes the filesystem and returns its mount, which is nowhere yet.
func (c *fsContext) create(attrs int) (int, error) {
	if err := unix.FsconfigCreate(c.fd); err != nil {
		return -1, c.fail(stepCreate, "create the filesystem", err)
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, c.fail(stepCreate, "create the mount", err)
	}
	return fd, nil
}

// eachLower calls f with every lower, open, nearest first.
type eachLower func(f func(dir int, l lower) error) error

// build makes the mount, attached nowhere. lowers gives the directories, one after the other, so that a mount of 500
// lowers needs few descriptors.
func (p *plan) build(w way, lowers eachLower) (int, error) {
	c, err := openContext("overlay")
	if err != nil {
		return -1, err
	}
	defer c.close()
	if err := c.set(param{key: "source", value: "overlay"}); err != nil {
		return -1, err
	}
	at := stepFirstLower
	short := p.longLine()
	err = lowers(func(dir int, l lower) error {
		path, a := l.path, w.api
		if l.mapped {
			path = "" // dir is a clone of it
		}
		if short {
			path, a = "", apiLink
		}
		if err := c.setDir(a, "lowerdir+", dir, path); err != nil {
			return c.fail(at, fmt.Sprintf("add lower directory %q", l.path), err)
		}
		at = stepLayer
		return nil
	})
	if err != nil {
		return -1, err
	}
	for _, o := range p.params {
		if err := c.set(o); err != nil {
			return -1, err
		}
	}
	for _, flag := range p.attrs.super {
		if err := c.set(param{key: flag, flag: true}); err != nil {
			return -1, err
		}
	}
	if p.readOnly {
		if err := c.set(param{key: "ro", flag: true}); err != nil {
			return -1, err
		}
	}
	if err := p.setUpper(c, w.api); err != nil {
		return -1, err
	}
	return c.create(p.attrs.mount)
}

// maxLine is how many bytes of lower directories /proc/mounts may show. Most programs, container runtimes among them, read no line
// of it that is longer than 64 KiB, and fail as a whole where there is one: with such a mount no container would start any more.
const maxLine = 48 << 10

// longLine reports whether the paths of the lowers have to be left out of /proc/mounts.
func (p *plan) longLine() bool {
	n := 0
	for _, l := range p.lowers {
		n += len(",lowerdir+=") + len(l.path) + 3*strings.Count(l.path, " ") // a space is shown as four bytes
	}
	return n > maxLine
}

func (p *plan) setUpper(c *fsContext, a api) error {
	if p.upper == "" {
		return nil
	}
	for _, o := range []param{{key: "upperdir", value: p.upper}, {key: "workdir", value: p.work}} {
		dir, err := openDir(o.value)
		if err != nil {
			return err
		}
		err = c.setDir(a, o.key, dir, o.value)
		unix.Close(dir)
		if err != nil {
			return c.fail(stepLayer, fmt.Sprintf("set %s %q", o.key, o.value), err)
		}
	}
	return nil
}

// eachLower opens the lowers where they are, on detached clones of their mounts where they are mapped.
func (p *plan) eachLower(c *clones, f func(dir int, l lower) error) error {
	for _, l := range p.lowers {
		dir, err := c.open(l)
		if err != nil {
			return err
		}
		err = f(dir, l)
		unix.Close(dir)
		if err != nil {
			return err
		}
	}
	return nil
}

// emptyTmpfs returns a detached mount of an empty read-only tmpfs.
func emptyTmpfs() (int, error) {
	c, err := openContext("tmpfs")
	if err != nil {
		return -1, err
	}
	defer c.close()
	for _, o := range []param{{key: "source", value: "empty"}, {key: "mode", value: "0755"}, {key: "ro", flag: true}} {
		if err := c.set(o); err != nil {
			return -1, err
		}
	}
	return c.create(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC)
}
