package layers

import (
	"context"

	"golang.org/x/sys/unix"
)

// A ChangeKind says what happened to a path between two layers.
type ChangeKind int

// The kinds of changes, numbered as containers/storage does.
const (
	ChangeModify ChangeKind = iota
	ChangeAdd
	ChangeDelete
)

// String returns "C", "A" or "D".
func (k ChangeKind) String() string {
	switch k {
	case ChangeModify:
		return "C"
	case ChangeAdd:
		return "A"
	case ChangeDelete:
		return "D"
	}
	return ""
}

// A Change is one path that differs from the layers below. Path is absolute within the root.
type Change struct {
	Path string
	Kind ChangeKind
}

// String returns the change as `podman diff` prints it: "C /etc".
func (c Change) String() string { return c.Kind.String() + " " + c.Path }

// ChangesOptions says how Changes reads its directories.
type ChangesOptions struct {
	// UserXattr says that overlay's marks are `user.overlay.*`, as in a user namespace, and not `trusted.overlay.*`.
	UserXattr bool
}

// Changes lists what an overlay upper directory changes over lowers, the overlay-native directories below it, nearest first.
// Paths, kinds and order are those of the overlay driver of containers/storage. It may run while a container writes to upper.
func Changes(upper string, lowers []string, o ChangesOptions) ([]Change, error) {
	l, err := openLowers(lowers)
	if err != nil {
		return nil, err
	}
	defer l.close()
	v := &changesVisitor{lowers: l, userXattr: o.UserXattr}
	if err := walkTree(context.Background(), upper, v, func(string, error) {}); err != nil {
		return nil, err
	}
	return v.list.changes, nil
}

// A changeList collects changes during a walk and sees to it that a directory is listed when something in it was added or deleted.
type changeList struct {
	changes []Change
	dirs    []listedDir // from the root to the directory that the walk is in
	missing int         // how many of dirs are not listed yet
}

type listedDir struct {
	end    int // where the directory's path ends in a path below it
	listed bool
}

// enter begins the content of a directory whose path has length end; listed says whether it is in the list already.
func (l *changeList) enter(end int, listed bool) {
	listed = listed || end == 0 // the root is never listed
	if !listed {
		l.missing++
	}
	l.dirs = append(l.dirs, listedDir{end: end, listed: listed})
}

func (l *changeList) leave() {
	last := len(l.dirs) - 1
	if !l.dirs[last].listed {
		l.missing--
	}
	l.dirs = l.dirs[:last]
}

// add lists a change of the relative path, and before an addition or deletion the directories above it.
func (l *changeList) add(path string, kind ChangeKind) {
	if kind != ChangeModify && l.missing > 0 {
		for i := range l.dirs {
			if d := &l.dirs[i]; !d.listed {
				l.changes = append(l.changes, Change{Path: "/" + path[:d.end], Kind: ChangeModify})
				d.listed = true
			}
		}
		l.missing = 0
	}
	l.changes = append(l.changes, Change{Path: "/" + path, Kind: kind})
}

// A changesVisitor finds the changes while it walks an upper directory.
type changesVisitor struct {
	lowers    *lowerDirs
	userXattr bool
	list      changeList
	views     [][]lowerAt // one for each directory from the root
	next      []lowerAt   // view for the directory that was just visited
	end       int         // length of its path
	listed    bool        // whether it was listed
}

func (v *changesVisitor) enter(name string) error {
	if len(v.views) == 0 {
		v.next = v.lowers.root()
	}
	v.views = append(v.views, v.next)
	v.list.enter(v.end, v.listed)
	return nil
}

func (v *changesVisitor) leave() {
	v.views = v.views[:len(v.views)-1]
	v.list.leave()
}

func (v *changesVisitor) visit(_ context.Context, e *walkEntry) error {
	view := v.views[len(v.views)-1]
	kind, err := v.kind(e, view)
	if err != nil {
		return err
	}
	if kind != unchanged {
		v.list.add(e.path, kind)
	}
	if e.isDir() {
		v.end, v.listed = len(e.path), kind != unchanged
		v.next, err = v.lowers.descend(view, e.path)
	}
	return err
}

// unchanged is the kind of a directory that is in an upper directory only because something in it changed.
const unchanged ChangeKind = -1

func (v *changesVisitor) kind(e *walkEntry, view []lowerAt) (ChangeKind, error) {
	if e.isWhiteout() {
		return ChangeDelete, nil
	}
	if e.isDir() && len(view) > 0 {
		opaque, err := isOpaque(e.attrs(), v.userXattr)
		if err != nil {
			return 0, err
		}
		if opaque {
			hides, err := v.lowers.hides(view, e.path)
			if err != nil {
				return 0, err
			}
			if hides {
				return ChangeDelete, nil
			}
		}
	}
	var st unix.Stat_t
	found, err := v.lowers.find(view, e.path, &st)
	if err != nil {
		return 0, err
	}
	if !found {
		return ChangeAdd, nil
	}
	if e.isDir() && st.Mode == e.st.Mode && st.Size == e.st.Size && sameTime(st.Mtim, e.st.Mtim) {
		return unchanged, nil
	}
	return ChangeModify, nil
}

// sameTime compares as containers/storage does: a time without nanoseconds may come from a tar that could not hold them.
func sameTime(a, b unix.Timespec) bool {
	return a.Sec == b.Sec && (a.Nsec == b.Nsec || a.Nsec == 0 || b.Nsec == 0)
}
