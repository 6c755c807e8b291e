package driver

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// overflowID is whom the kernel shows, and containers/storage writes down, where no range of a mapping has the owner.
const overflowID = 65534

// A remapper changes the owners of a whole tree from those under one mapping to those under another.
type remapper struct {
	from, to Mappings
	moved    map[uint64]string // inodes with several names, before the change, and the first name of each
	cost     mappedCost
}

// file changes the owner of one file, and restores what that takes away: setuid and setgid, file capabilities, and its other names,
// for a copy up of one name leaves the others behind.
func (r *remapper) file(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	uid, gid, err := r.owner(int(st.Uid), int(st.Gid))
	if err != nil {
		return fmt.Errorf("map the owner of %s: %w", path, err)
	}
	if uid == int(st.Uid) && gid == int(st.Gid) {
		return nil
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		first, ok := r.moved[st.Ino]
		if ok {
			return relink(first, path)
		}
		r.moved[st.Ino] = path
	}
	r.cost.Entries++
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		r.cost.Bytes += st.Blocks * 512
	}
	return chown(path, uid, gid, st.Mode)
}

// owner translates an owner on disk. Root that the first mapping does not have is the container's, as for containers/storage: a
// mount without mappings gives it the root directory.
func (r *remapper) owner(uid, gid int) (int, int, error) {
	u, uidErr := toContainer(uid, r.from.UIDs)
	g, gidErr := toContainer(gid, r.from.GIDs)
	if uidErr != nil || gidErr != nil {
		if uid != 0 || gid != 0 {
			return 0, 0, fmt.Errorf("%d:%d is in no range: %w", uid, gid, ErrOption)
		}
		u, g = 0, 0
	}
	return toHostOr(u, r.to.UIDs, overflowID), toHostOr(g, r.to.GIDs, overflowID), nil
}

// toContainer returns the id in the container of an id on disk.
func toContainer(id int, maps []IDMap) (int, error) {
	if len(maps) == 0 {
		return id, nil
	}
	for _, m := range maps {
		if id >= m.HostID && id < m.HostID+m.Size {
			return m.ContainerID + id - m.HostID, nil
		}
	}
	return 0, fmt.Errorf("%d is in no range: %w", id, ErrOption)
}

func toHostOr(id int, maps []IDMap, otherwise int) int {
	if host, err := toHost(id, maps); err == nil {
		return host
	}
	return otherwise
}

// relink makes path a name of the file first. The directory keeps its times.
func relink(first, path string) error {
	var st unix.Stat_t
	dir := filepath.Dir(path)
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := os.Link(first, path); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil {
		return &os.PathError{Op: "utimensat", Path: dir, Err: err}
	}
	return nil
}

// chown is chown(2) that keeps a file's mode and capabilities.
func chown(path string, uid, gid int, mode uint32) error {
	var capability [64]byte
	n, capErr := unix.Lgetxattr(path, "security.capability", capability[:])
	if err := os.Lchown(path, uid, gid); err != nil {
		return err
	}
	if mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		if err := unix.Chmod(path, mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	if capErr == nil && n > 0 {
		if err := unix.Lsetxattr(path, "security.capability", capability[:n], 0); err != nil {
			return &os.PathError{Op: "setxattr", Path: path, Err: err}
		}
	}
	return nil
}
