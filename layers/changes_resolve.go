package layers

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPath is how long a path may be that goes to the kernel at once; longer ones are taken in pieces.
const maxPath = 4000

// A lowerRoot is the lowerTree of a directory.
type lowerRoot struct {
	path string
	fd   int
}

// openLowers opens lower directories, nearest first.
func openLowers(paths []string) (roots lowerTrees, closeAll func(), err error) {
	closeAll = func() {
		for _, r := range roots {
			unix.Close(r.(*lowerRoot).fd)
		}
	}
	for _, p := range paths {
		fd, err := retryEINTR(func() (int, error) {
			return unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("open lower directory %s: %w", p, err)
		}
		roots = append(roots, &lowerRoot{path: p, fd: fd})
	}
	return roots, closeAll, nil
}

func (r *lowerRoot) name() string                            { return "lower directory " + r.path }
func (r *lowerRoot) stat(path string, st *unix.Stat_t) error { return statBeneath(r.fd, path, st) }
func (r *lowerRoot) readlink(path string) (string, error)    { return readlinkBeneath(r.fd, path) }
func (r *lowerRoot) dirSize(_ string, st *unix.Stat_t) int64 { return st.Size }
func (r *lowerRoot) statInRoot(path string, st *unix.Stat_t) (bool, error) {
	return statInRoot(r.fd, path, st)
}

// statBeneath describes what is at path under the directory root. Its directories are known to be no symlinks, and the
// last component is not followed.
func statBeneath(root int, path string, st *unix.Stat_t) error {
	at := root
	for len(path) > maxPath {
		cut := strings.LastIndexByte(path[:maxPath], '/')
		fd, err := retryEINTR(func() (int, error) {
			return unix.Openat(at, path[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		if at != root {
			unix.Close(at)
		}
		if err != nil {
			return err
		}
		at, path = fd, path[cut+1:]
	}
	_, err := retryEINTR(func() (int, error) {
		return 0, unix.Fstatat(at, path, st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if at != root {
		unix.Close(at)
	}
	return err
}

// maxSymlinks is how many symlinks one resolution follows before it is called a loop.
const maxSymlinks = 255

// statJoined describes what is at path in a layer after all symlinks, the last component's too, were replaced by their targets
// as text, with the layer's root as that of absolute ones and names that do not exist taken as directories. That is how
// containers/storage finds a path in a lower layer when it lists changes. loop says that the symlinks do not end.
func statJoined(t lowerTree, path string, st *unix.Stat_t) (exists, loop bool, err error) {
	var done []string
	rest, links := strings.Split(path, "/"), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			continue
		}
		next := append(done[:len(done):len(done)], part)
		name := strings.Join(next, "/")
		err := t.stat(name, st)
		if err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
			return false, false, err
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			done = next
			continue
		}
		if links++; links > maxSymlinks {
			return false, true, nil
		}
		target, err := t.readlink(name)
		if err != nil {
			return false, false, err
		}
		if strings.HasPrefix(target, "/") {
			done = nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	name := strings.Join(done, "/")
	if name == "" {
		name = "."
	}
	err = t.stat(name, st)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return false, false, nil
	}
	return err == nil, false, err
}

func readlinkBeneath(root int, path string) (string, error) {
	dir, name := parentPath(path), path[strings.LastIndexByte(path, '/')+1:]
	d := dirHandle{fd: root}
	if dir != "" {
		fd, err := openInRoot(root, dir)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		d.fd = fd
	}
	return d.readlink(name)
}

// statInRoot describes what the kernel finds at path, the last component followed, when root is taken for the root directory.
func statInRoot(root int, path string, st *unix.Stat_t) (exists bool, err error) {
	fd, err := openInRoot(root, path)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return true, unix.Fstat(fd, st)
}

// openInRoot opens path with O_PATH, confined to root as chroot would do.
func openInRoot(root int, path string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, path, &how)
		// EAGAIN: something was renamed while a ".." was resolved.
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}
