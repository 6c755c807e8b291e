package overlay

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// clones are the detached mounts that the lowers of one overlay mount need.
type clones struct {
	userns int
	base   string // a directory that all mapped lowers are under, "" if there is none
	shared int    // a clone of base, -1 before it is needed
	mounts []int
}

// newClones prepares for the lowers of p. Removing a detached mount costs the kernel about a millisecond, so one clone
// of the directory above them serves all mapped lowers that can be reached through it.
func (p *plan) newClones() *clones {
	c := &clones{userns: p.userns, shared: -1}
	for i, l := range p.lowers {
		switch {
		case !l.mapped:
		case !filepath.IsAbs(l.path) || l.path != filepath.Clean(l.path) || len(l.path) > maxPath:
			c.base = ""
			return c
		case c.base == "":
			c.base = filepath.Dir(l.path)
		default:
			for !within(p.lowers[i].path, c.base) && c.base != "/" {
				c.base = filepath.Dir(c.base)
			}
		}
	}
	return c
}

func (c *clones) close() {
	for _, mnt := range c.mounts {
		unix.Close(mnt)
	}
}

// open opens a lower for reading: descriptors of mounts are O_PATH, which fsconfig takes from Linux 6.15 on only.
func (c *clones) open(l lower) (int, error) {
	if l.path != "" && !l.mapped {
		return openDir(l.path)
	}
	if l.mapped {
		dir, err := c.openShared(l.path)
		if err != nil || dir >= 0 {
			return dir, err
		}
	}
	var mnt int
	var err error
	if l.mapped {
		mnt, err = cloneMapped(l.path, c.userns)
	} else {
		mnt, err = emptyTmpfs()
	}
	if err != nil {
		return -1, err
	}
	c.mounts = append(c.mounts, mnt)
	return openOn(mnt, ".", l.path)
}

// openShared opens the directory at path on the shared clone. It returns -1 if that clone does not show it: the clone
// holds one mount and no other that is mounted on it.
func (c *clones) openShared(path string) (int, error) {
	if c.base == "" {
		return -1, nil
	}
	if c.shared < 0 {
		mnt, err := cloneMapped(c.base, c.userns)
		if errors.Is(err, unix.EINVAL) {
			c.base = ""
			return -1, nil // it may be on another filesystem than the lowers
		}
		if err != nil {
			return -1, err
		}
		c.shared, c.mounts = mnt, append(c.mounts, mnt)
	}
	direct, err := openPath(path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(direct)
	dir, err := openOn(c.shared, strings.TrimLeft(strings.TrimPrefix(path, c.base), "/"), path)
	if err != nil {
		return -1, nil
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(direct, &a), unix.Fstat(dir, &b)); err != nil || a.Dev != b.Dev || a.Ino != b.Ino {
		unix.Close(dir)
		return -1, nil
	}
	return dir, nil
}

func openOn(mnt int, name, path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH}
	dir, err := retry(func() (int, error) { return unix.Openat2(mnt, name, &how) })
	if err != nil {
		return -1, fmt.Errorf("open the clone of %q: %w", path, err)
	}
	return dir, nil
}

// cloneMapped returns a detached mount of the directory at path, with the id map of a user namespace.
func cloneMapped(path string, userns int) (int, error) {
	dir, err := openPath(path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	mnt, err := unix.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone the mount of %q: %w", path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns), Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(mnt, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(mnt)
		if errors.Is(err, unix.EINVAL) {
			return -1, fmt.Errorf("map the owners of %q: filesystem or mount without idmapped mounts: %w", path, err)
		}
		return -1, fmt.Errorf("map the owners of %q: %w", path, err)
	}
	return mnt, nil
}
