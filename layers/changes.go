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
	l, closeLowers, err := openLowers(lowers)
	if err != nil {
		return nil, err
	}
	defer closeLowers()
	v := &changesVisitor{changeFinder: changeFinder{lowers: l}, userXattr: o.UserXattr}
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

// A changeFinder finds the changes of a layer along a walk of it.
type changeFinder struct {
	lowers lowerTrees
	list   changeList
	views  [][]lowerAt // one for each directory from the root
	next   []lowerAt   // view for the directory that was just found
	end    int         // length of its path
	listed bool        // whether it was listed
}

func (f *changeFinder) enter(string) error {
	if len(f.views) == 0 {
		f.next = f.lowers.root()
	}
	f.views = append(f.views, f.next)
	f.list.enter(f.end, f.listed)
	return nil
}

func (f *changeFinder) leave() {
	f.views = f.views[:len(f.views)-1]
	f.list.leave()
}

// A changedEntry is an entry of the layer whose changes are found.
type changedEntry struct {
	path   string
	st     *unix.Stat_t
	opaque func() (bool, error) // of a directory
	size   func() int64         // of a directory
	fresh  bool                 // of a directory: its time is like no other's
}

// find lists what an entry changes.
func (f *changeFinder) find(e changedEntry) error {
	view := f.views[len(f.views)-1]
	kind, err := f.kind(e, view)
	if err != nil {
		return err
	}
	if kind != unchanged {
		f.list.add(e.path, kind)
	}
	if isDirStat(e.st) {
		f.end, f.listed = len(e.path), kind != unchanged
		f.next, err = f.lowers.descend(view, e.path)
	}
	return err
}

// unchanged is the kind of a directory that is in an upper directory only because something in it changed.
const unchanged ChangeKind = -1

func (f *changeFinder) kind(e changedEntry, view []lowerAt) (ChangeKind, error) {
	if isWhiteoutStat(e.st) {
		return ChangeDelete, nil
	}
	if isDirStat(e.st) && len(view) > 0 {
		opaque, err := e.opaque()
		if err != nil {
			return 0, err
		}
		if opaque {
			hides, err := f.lowers.hides(view, e.path)
			if err != nil {
				return 0, err
			}
			if hides {
				return ChangeDelete, nil
			}
		}
	}
	var st unix.Stat_t
	in, err := f.lowers.find(view, e.path, &st)
	if err != nil {
		return 0, err
	}
	if in == nil {
		return ChangeAdd, nil
	}
	if isDirStat(e.st) && !e.fresh && st.Mode == e.st.Mode && sameTime(st.Mtim, e.st.Mtim) && sameSize(e.size(), in.dirSize(e.path, &st)) {
		return unchanged, nil
	}
	return ChangeModify, nil
}

// sameSize compares the sizes of directories, which say little but count for containers/storage. Negative ones are not known.
func sameSize(a, b int64) bool { return a == b || a < 0 || b < 0 }

// A changesVisitor finds the changes of an upper directory.
type changesVisitor struct {
	changeFinder
	userXattr bool
}

func (v *changesVisitor) visit(_ context.Context, e *walkEntry) error {
	return v.find(changedEntry{
		path:   e.path,
		st:     &e.st,
		opaque: func() (bool, error) { return isOpaque(e.attrs(), v.userXattr) },
		size:   func() int64 { return e.st.Size },
	})
}

// sameTime compares as containers/storage does: a time without nanoseconds may come from a tar that could not hold them.
func sameTime(a, b unix.Timespec) bool {
	return a.Sec == b.Sec && (a.Nsec == b.Nsec || a.Nsec == 0 || b.Nsec == 0)
}
