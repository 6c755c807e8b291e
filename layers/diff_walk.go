package layers

import (
	"context"
	"io/fs"

	"golang.org/x/sys/unix"
)

// A walkEntry is what a walk shows of one entry. It is valid during the visit only.
type walkEntry struct {
	dir  *dirHandle // where the entry is
	self *dirHandle // the entry's own directory, open; nil if it is none
	name string
	path string // from the walk's root, without leading slash
	st   unix.Stat_t
}

func (e *walkEntry) isDir() bool     { return isDirStat(&e.st) }
func (e *walkEntry) isSymlink() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFLNK }

// isWhiteout says whether the entry is overlay's mark for a removed name, a character device 0:0.
func (e *walkEntry) isWhiteout() bool { return isWhiteoutStat(&e.st) }

func isDirStat(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isWhiteoutStat(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// attrs gives access to the entry's extended attributes.
func (e *walkEntry) attrs() attrSource {
	if e.self != nil {
		return attrSource{fd: e.self.fd}
	}
	return e.dir.attrs(e.name)
}

// openEntry reads the entry name of d, and opens it if it is a directory.
func openEntry(d *dirHandle, name string) (*walkEntry, error) {
	e := &walkEntry{dir: d, name: name}
	err := d.stat(name, &e.st)
	if err == nil && e.isDir() {
		e.self, err = d.child(name)
	}
	return e, err
}

// close ends the work in the entry's directory, if it is one.
func (e *walkEntry) close() error {
	if e.self == nil {
		return nil
	}
	return e.self.close()
}

// A visitor is called by walkTree for each entry but the root, directories before their content, names in the
// order of bytes. enter and leave frame the content of each directory, the root included (with name "").
type visitor interface {
	visit(ctx context.Context, e *walkEntry) error
	enter(name string) error
	leave()
}

// A treeWalk is the state of one walkTree.
type treeWalk struct {
	v    visitor
	gone func(path string, err error)
	path []byte // one buffer for all levels: memory stays linear in the depth
}

// walkTree walks the tree at root, all of it relative to open directories. Entries that vanish meanwhile are told to gone.
func walkTree(ctx context.Context, root string, v visitor, gone func(path string, err error)) error {
	d, err := openDirHandle(root)
	if err != nil {
		return err
	}
	w := &treeWalk{v: v, gone: gone}
	err = w.content(ctx, d, "")
	if cerr := d.close(); err == nil {
		err = cerr
	}
	return err
}

func (w *treeWalk) content(ctx context.Context, d *dirHandle, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names, err := d.names()
	if err != nil {
		return w.fail("read directory", err)
	}
	if err := w.v.enter(name); err != nil {
		return err
	}
	defer w.v.leave()
	base := len(w.path)
	for _, n := range names {
		if base > 0 {
			w.path = append(w.path, '/')
		}
		w.path = append(w.path, n...)
		if err := w.entry(ctx, d, n); err != nil {
			return err
		}
		w.path = w.path[:base]
	}
	return nil
}

func (w *treeWalk) entry(ctx context.Context, d *dirHandle, name string) error {
	e, err := openEntry(d, name)
	if vanished(err) {
		w.gone(string(w.path), err)
		return nil
	}
	if err != nil {
		return w.fail("open", err)
	}
	e.path = string(w.path)
	if e.self == nil {
		return w.v.visit(ctx, e)
	}
	if err = w.v.visit(ctx, e); err == nil {
		e.path = ""
		d.suspend()
		err = w.content(ctx, e.self, name)
	}
	if cerr := e.close(); err == nil {
		err = cerr
	}
	return err
}

func (w *treeWalk) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: "/" + string(w.path), Err: err}
}
