package layers

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// What a lower directory has at the path of a directory of the upper one. Lowers that have nothing there are not recorded at all.
type lowerKind uint8

const (
	lowerDir     lowerKind = iota // a directory, reached through directories
	lowerStop                     // a whiteout, here or above: this lower and those under it are hidden
	lowerBlocked                  // some other file, here or above
	lowerLinked                   // reached through a symlink, which upstream follows within the lower
)

// A lowerAt is what one lower has at a path.
type lowerAt struct {
	index int
	kind  lowerKind
}

// lowerDirs are the overlay-native directories under an upper one, nearest first.
//
// What is asked of them is what containers/storage asks, path by path and lower by lower: is there a whiteout at the path
// or above it, and if not, what is there. It looks at lowers one at a time, so an opaque mark in one does not hide
// those below, and it follows symlinks in the path. Both are kept, because lists and tars must be equal. Only where it gives
// up with an error (a file in place of a directory, a loop of symlinks) do we go on.
type lowerDirs struct {
	paths []string
	fds   []int
}

func openLowers(paths []string) (*lowerDirs, error) {
	l := &lowerDirs{paths: paths, fds: make([]int, 0, len(paths))}
	for _, p := range paths {
		fd, err := retryEINTR(func() (int, error) {
			return unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			l.close()
			return nil, fmt.Errorf("open lower directory %s: %w", p, err)
		}
		l.fds = append(l.fds, fd)
	}
	return l, nil
}

func (l *lowerDirs) close() {
	for _, fd := range l.fds {
		unix.Close(fd)
	}
	l.fds = nil
}

// root is the view at the root of the layers.
func (l *lowerDirs) root() []lowerAt {
	view := make([]lowerAt, len(l.fds))
	for i := range view {
		view[i] = lowerAt{index: i, kind: lowerDir}
	}
	return view
}

// descend returns the view at path, a child of the directory that view is of.
func (l *lowerDirs) descend(view []lowerAt, path string) ([]lowerAt, error) {
	var below []lowerAt
	for _, at := range view {
		switch at.kind {
		case lowerStop, lowerBlocked, lowerLinked:
			below = append(below, at)
		case lowerDir:
			var st unix.Stat_t
			err := statBeneath(l.fds[at.index], path, &st)
			if err == unix.ENOENT {
				continue
			}
			if err != nil {
				return nil, l.fail(at.index, path, err)
			}
			switch {
			case isWhiteoutStat(&st):
				at.kind = lowerStop
			case st.Mode&unix.S_IFMT == unix.S_IFLNK:
				at.kind = lowerLinked
			case st.Mode&unix.S_IFMT != unix.S_IFDIR:
				at.kind = lowerBlocked
			}
			below = append(below, at)
		}
		if at.kind == lowerStop {
			break // nothing below is ever asked
		}
	}
	return below, nil
}

// find looks for path in the lowers, as Changes does: view is that of its directory. found is false if no lower has it
// or a nearer one hides it.
func (l *lowerDirs) find(view []lowerAt, path string, st *unix.Stat_t) (found bool, err error) {
	for _, at := range view {
		found, stop, err := l.findIn(at, path, st)
		if err != nil {
			return false, l.fail(at.index, path, err)
		}
		if found || stop {
			return found, nil
		}
	}
	return false, nil
}

func (l *lowerDirs) findIn(at lowerAt, path string, st *unix.Stat_t) (found, stop bool, err error) {
	switch at.kind {
	case lowerStop, lowerBlocked:
		return false, true, nil
	case lowerDir:
		err = statBeneath(l.fds[at.index], path, st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return l.findLinked(at.index, path, st)
		}
		if err == unix.ENOENT {
			return false, false, nil
		}
		stop = err == nil && isWhiteoutStat(st)
		return err == nil && !stop, stop, err
	}
	return l.findLinked(at.index, path, st)
}

// findLinked is findIn for a path with symlinks in it.
func (l *lowerDirs) findLinked(index int, path string, st *unix.Stat_t) (found, stop bool, err error) {
	exists, loop, err := statJoined(l.fds[index], path, st)
	if err != nil || loop {
		return loop, false, err
	}
	if exists && isWhiteoutStat(st) {
		return false, true, nil
	}
	for dir := parentPath(path); dir != ""; dir = parentPath(dir) {
		var up unix.Stat_t
		there, _, err := statJoined(l.fds[index], dir, &up)
		if err != nil {
			return false, false, err
		}
		if there && isWhiteoutStat(&up) {
			return false, true, nil
		}
	}
	return exists, false, nil
}

// hides says whether an opaque directory at path hides something, as the tar of a layer has to say it. view is that of its parent.
func (l *lowerDirs) hides(view []lowerAt, path string) (bool, error) {
	for _, at := range view {
		found, stop, err := l.hidesIn(at, path)
		if err != nil {
			return false, l.fail(at.index, path, err)
		}
		if found || stop {
			return found, nil
		}
	}
	return false, nil
}

func (l *lowerDirs) hidesIn(at lowerAt, path string) (found, stop bool, err error) {
	switch at.kind {
	case lowerStop:
		return false, true, nil
	case lowerBlocked:
		return false, false, nil
	case lowerDir:
		var st unix.Stat_t
		err = statBeneath(l.fds[at.index], path, &st)
		if err == unix.ENOENT {
			return false, false, nil
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			stop = err == nil && isWhiteoutStat(&st)
			return err == nil && !stop, stop, err
		}
	}
	return l.hidesLinked(at.index, path)
}

// hidesLinked is hidesIn for a path with symlinks in it.
func (l *lowerDirs) hidesLinked(index int, path string) (found, stop bool, err error) {
	var st unix.Stat_t
	exists, err := statInRoot(l.fds[index], path, &st)
	if err == unix.ELOOP {
		return true, false, nil // a symlink that leads nowhere is still something
	}
	if err != nil {
		return false, false, err
	}
	if exists {
		stop = isWhiteoutStat(&st)
		return !stop, stop, nil
	}
	for dir := parentPath(path); dir != ""; dir = parentPath(dir) {
		exists, err := statInRoot(l.fds[index], dir, &st)
		if err != nil && err != unix.ELOOP {
			return false, false, err
		}
		if exists && isWhiteoutStat(&st) {
			return false, true, nil
		}
	}
	return false, false, nil
}

func (l *lowerDirs) fail(index int, path string, err error) error {
	return fmt.Errorf("look up /%s in lower directory %s: %w", path, l.paths[index], err)
}

// parentPath returns the directory of a relative path, "" for one in the root.
func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return ""
}
