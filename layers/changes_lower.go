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

// A lowerTree is one layer as it is asked for paths: a directory, or a commit.
type lowerTree interface {
	// stat describes what is at path. Its directories are known to be no symlinks, and the last component is not followed.
	stat(path string, st *unix.Stat_t) error
	// statInRoot describes what the kernel would find at path, the last component followed, with the layer's root as root directory.
	statInRoot(path string, st *unix.Stat_t) (exists bool, err error)
	// readlink returns the target of the symlink at path, whose directories are no symlinks.
	readlink(path string) (string, error)
	// dirSize returns the size of the directory at path in its checkout, or a negative one if there is none.
	dirSize(path string, st *unix.Stat_t) int64
	// name says in errors which layer it is.
	name() string
}

// lowerTrees are the layers under an upper one, nearest first.
//
// What is asked of them is what containers/storage asks, path by path and lower by lower: is there a whiteout at the path
// or above it, and if not, what is there. It looks at lowers one at a time, so an opaque mark in one does not hide
// those below, and it follows symlinks in the path. Both are kept, because lists and tars must be equal. Only where it gives
// up with an error (a file in place of a directory, a loop of symlinks) do we go on.
type lowerTrees []lowerTree

// root is the view at the root of the layers.
func (l lowerTrees) root() []lowerAt {
	view := make([]lowerAt, len(l))
	for i := range view {
		view[i] = lowerAt{index: i, kind: lowerDir}
	}
	return view
}

// descend returns the view at path, a child of the directory that view is of.
func (l lowerTrees) descend(view []lowerAt, path string) ([]lowerAt, error) {
	var below []lowerAt
	for _, at := range view {
		switch at.kind {
		case lowerStop, lowerBlocked, lowerLinked:
			below = append(below, at)
		case lowerDir:
			var st unix.Stat_t
			err := l[at.index].stat(path, &st)
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

// find looks for path in the lowers, as Changes does, and returns the lower that has it: view is that of its directory. It returns nil
// if no lower has it or a nearer one hides it.
func (l lowerTrees) find(view []lowerAt, path string, st *unix.Stat_t) (in lowerTree, err error) {
	for _, at := range view {
		found, stop, err := l.findIn(at, path, st)
		if err != nil {
			return nil, l.fail(at.index, path, err)
		}
		if found {
			return l[at.index], nil
		}
		if stop {
			break
		}
	}
	return nil, nil
}

func (l lowerTrees) findIn(at lowerAt, path string, st *unix.Stat_t) (found, stop bool, err error) {
	switch at.kind {
	case lowerStop, lowerBlocked:
		return false, true, nil
	case lowerDir:
		err = l[at.index].stat(path, st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return findLinked(l[at.index], path, st)
		}
		if err == unix.ENOENT {
			return false, false, nil
		}
		stop = err == nil && isWhiteoutStat(st)
		return err == nil && !stop, stop, err
	}
	return findLinked(l[at.index], path, st)
}

// findLinked is findIn for a path with symlinks in it.
func findLinked(t lowerTree, path string, st *unix.Stat_t) (found, stop bool, err error) {
	exists, loop, err := statJoined(t, path, st)
	if err != nil || loop {
		return loop, false, err
	}
	if exists && isWhiteoutStat(st) {
		return false, true, nil
	}
	for dir := parentPath(path); dir != ""; dir = parentPath(dir) {
		var up unix.Stat_t
		there, _, err := statJoined(t, dir, &up)
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
func (l lowerTrees) hides(view []lowerAt, path string) (bool, error) {
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

func (l lowerTrees) hidesIn(at lowerAt, path string) (found, stop bool, err error) {
	switch at.kind {
	case lowerStop:
		return false, true, nil
	case lowerBlocked:
		return false, false, nil
	case lowerDir:
		var st unix.Stat_t
		err = l[at.index].stat(path, &st)
		if err == unix.ENOENT {
			return false, false, nil
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			stop = err == nil && isWhiteoutStat(&st)
			return err == nil && !stop, stop, err
		}
	}
	return hidesLinked(l[at.index], path)
}

// hidesLinked is hidesIn for a path with symlinks in it.
func hidesLinked(t lowerTree, path string) (found, stop bool, err error) {
	var st unix.Stat_t
	exists, err := t.statInRoot(path, &st)
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
		exists, err := t.statInRoot(dir, &st)
		if err != nil && err != unix.ELOOP {
			return false, false, err
		}
		if exists && isWhiteoutStat(&st) {
			return false, true, nil
		}
	}
	return false, false, nil
}

func (l lowerTrees) fail(index int, path string, err error) error {
	return fmt.Errorf("look up /%s in %s: %w", path, l[index].name(), err)
}

// parentPath returns the directory of a relative path, "" for one in the root.
func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return ""
}
