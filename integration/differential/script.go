package differential

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Script is what a container does to its root: the same steps for both sides.
type Script []Step

// Step is one system call, by path relative to the root.
type Step struct {
	Op   string
	Path string
	To   string // second path, target, attribute or content
	Mode uint32
	ID   int
}

// String is the step on one line.
func (s Step) String() string {
	return fmt.Sprintf("%s %q %q %o %d", s.Op, shorten(s.Path), shorten(s.To), s.Mode, s.ID)
}

var stepOps = []string{
	"write", "append", "truncate", "chmod", "chown", "unlink", "rename", "mkdir", "rmdir", "removeall", "symlink", "link",
	"mknod", "setxattr", "removexattr", "create", "create", "write", "unlink", "removeall", "recreate", "utimes", "fifo", "extend", "hole",
}

// MakeScript draws steps on the paths of a tree, existing and new.
func MakeScript(r *rand.Rand, t *Tree) Script {
	var paths []string
	for _, n := range t.Nodes[1:] {
		if len(n.Path) < 3000 {
			paths = append(paths, n.Path)
		}
	}
	paths = append(paths, "fresh", "etc/fresh", "new")
	var s Script
	for range r.IntN(25) {
		st := Step{Op: pick(r, stepOps), Path: pick(r, paths), Mode: pick(r, []uint32{0o644, 0o4755, 0o700, 0o2777}), ID: pick(r, []int{0, 1000, 65534})}
		switch st.Op {
		case "create", "mkdir", "mknod", "fifo", "symlink":
			if r.IntN(3) > 0 {
				st.Path = path.Join(pick(r, append(paths, ".")), pick(r, []string{"n1", "n2", "\xff", "a b"}))
			}
			if st.Op == "mkdir" && path.Base(st.Path) == "\xff" {
				st.Path = path.Join(path.Dir(st.Path), "utf8") // the oracle does not read directories of other names
			}
			st.To = pick(r, []string{"x", "content", "/etc/passwd"})
			paths = append(paths, st.Path)
		case "rename", "link":
			st.To = pick(r, paths)
			if r.IntN(2) == 0 {
				st.To = path.Join(path.Dir(st.Path), pick(r, []string{"moved", "linked"}))
				paths = append(paths, st.To)
			}
		case "write", "append", "recreate":
			st.To = pick(r, []string{"changed", "y", ""})
		case "setxattr", "removexattr":
			st.To = pick(r, []string{"user.a", "user.script", "security.capability", "trusted.t"})
		}
		s = append(s, st)
	}
	return s
}

// Run does the steps below root and returns the outcome of each, by error
// number. It gives fixed times to all that it touches, so that what is left
// depends on the script alone.
func (s Script) Run(root string) []string {
	out := make([]string, 0, len(s))
	touched := map[string]bool{}
	for _, st := range s {
		err := st.run(root)
		var errno unix.Errno
		switch {
		case err == nil:
			out = append(out, "ok")
		case errors.As(err, &errno):
			out = append(out, unix.ErrnoName(errno))
		default:
			out = append(out, err.Error())
		}
		if err != nil {
			continue
		}
		touched[st.Path], touched[path.Dir(st.Path)] = true, true
		if st.Op == "rename" || st.Op == "link" {
			touched[st.To], touched[path.Dir(st.To)] = true, true
		}
	}
	for i, p := range slices.Sorted(maps.Keys(touched)) {
		ts := []unix.Timespec{{Sec: 1500000000 + int64(i)}, {Sec: 1500000000 + int64(i), Nsec: 5}}
		if dir, base, err := openParent(root, p); err == nil {
			_ = unix.UtimesNanoAt(dir, base, ts, unix.AT_SYMLINK_NOFOLLOW) // what is gone needs none
			unix.Close(dir)
		}
	}
	return out
}

// run does one step. Symlinks on the way are followed as in a container: they
// never lead out of root.
func (st Step) run(root string) error {
	dir, base, err := openParent(root, st.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	switch st.Op {
	case "write":
		return st.write(dir, base, unix.O_TRUNC)
	case "append":
		return st.write(dir, base, unix.O_APPEND)
	case "create":
		return st.write(dir, base, unix.O_CREAT|unix.O_EXCL)
	case "recreate":
		if err := unix.Unlinkat(dir, base, 0); err != nil {
			return err
		}
		return st.write(dir, base, unix.O_CREAT|unix.O_EXCL)
	case "truncate", "extend", "hole":
		return st.write(dir, base, 0)
	case "chmod":
		return unix.Fchmodat(dir, base, st.Mode, unix.AT_SYMLINK_NOFOLLOW)
	case "chown":
		return unix.Fchownat(dir, base, st.ID, st.ID, unix.AT_SYMLINK_NOFOLLOW)
	case "unlink":
		return unix.Unlinkat(dir, base, 0)
	case "rmdir":
		return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
	case "mkdir":
		return unix.Mkdirat(dir, base, st.Mode)
	case "symlink":
		return unix.Symlinkat(st.To, dir, base)
	case "fifo":
		return unix.Mknodat(dir, base, unix.S_IFIFO|st.Mode&0o777, 0)
	case "mknod":
		return unix.Mknodat(dir, base, unix.S_IFCHR|st.Mode&0o777, int(unix.Mkdev(1, 3)))
	}
	return st.runMore(root, dir, base)
}

func (st Step) runMore(root string, dir int, base string) error {
	switch st.Op {
	case "removeall":
		return removeAll(dir, base)
	case "rename", "link":
		dir2, base2, err := openParent(root, st.To)
		if err != nil {
			return err
		}
		defer unix.Close(dir2)
		if st.Op == "rename" {
			return unix.Renameat(dir, base, dir2, base2)
		}
		return unix.Linkat(dir, base, dir2, base2, 0)
	case "setxattr":
		value := "set"
		if st.To == "security.capability" {
			value = capability(2, 1<<10)
		}
		return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base), st.To, []byte(value), 0)
	case "removexattr":
		return unix.Lremovexattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base), st.To)
	case "utimes":
		return unix.UtimesNanoAt(dir, base, []unix.Timespec{{Sec: 5}, {Sec: 6, Nsec: 7}}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return fmt.Errorf("unknown step %s", st.Op)
}

// write writes to regular files alone: a device of the image is one of the host.
func (st Step) write(dir int, base string, flags int) error {
	var stat unix.Stat_t
	err := unix.Fstatat(dir, base, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EINVAL
	}
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, st.Mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch st.Op {
	case "truncate":
		return unix.Ftruncate(fd, 3)
	case "extend":
		return unix.Ftruncate(fd, 200_000)
	case "hole":
		_, err = unix.Pwrite(fd, []byte("behind a hole"), 300_000)
		return err
	}
	_, err = unix.Write(fd, []byte(st.To))
	return err
}

func openParent(root, name string) (int, string, error) {
	r, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(r)
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(r, path.Dir(name), how)
		if err != unix.EAGAIN { // a rename somewhere on the machine, while ".." was walked
			return fd, path.Base(name), err
		}
	}
}

func removeAll(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(fd, name); err != nil {
			unix.Close(fd)
			return err
		}
	}
	unix.Close(fd)
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

// readNames lists a directory, sorted, and leaves the descriptor open.
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			slices.Sort(names)
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
