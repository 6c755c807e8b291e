package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A marker strikes from a set of objects those that a ref reaches. It can be asked again: it then looks at the refs that
// are new since. Each dirtree is read once in its life.
//
// This is the one place that decides what is garbage. Commits that the index counts are not walked, if the marker may ask
// it; all others are.
type marker struct {
	r     *root
	asks  bool                     // whether the index is asked
	going map[object.Checksum]int  // the commits of a removal, with how many of their counted refs are in it; nil: not known
	want  map[object.Name]struct{} // what may be garbage
	order []object.Name            // the same in the order in which it was added
	trees map[object.Checksum]struct{}
	heads map[object.Checksum]struct{} // commits that were walked
	stamp index.Stamp                  // of the index when it was last asked

	counted map[object.Checksum]struct{} // commits that a ref names and the index counts
	dirs    map[string]*refDir
}

// A refDir is what a directory of refs looked like when it was last read.
type refDir struct {
	changed unix.Timespec
	settled bool
	subdirs []string
	files   map[string]unix.Timespec // change time by name, of those that have been as they are for a while
}

func (r *root) newMarker() *marker {
	return &marker{
		r: r, want: map[object.Name]struct{}{}, trees: map[object.Checksum]struct{}{},
		heads: map[object.Checksum]struct{}{}, dirs: map[string]*refDir{}, counted: map[object.Checksum]struct{}{},
	}
}

// add makes an object a candidate for deletion. Candidates are added before the first refresh.
func (m *marker) add(n object.Name) {
	if _, ok := m.want[n]; !ok {
		m.want[n] = struct{}{}
		m.order = append(m.order, n)
	}
}

// garbage tells if no ref reached a candidate at the last refresh.
func (m *marker) garbage(n object.Name) bool {
	_, ok := m.want[n]
	return ok
}

// refresh looks for refs that are new and strikes what they reach. Under the exclusive lock its answer is final. A ref
// that cannot be read is an error: what it protects is not known.
func (m *marker) refresh(ctx context.Context) error {
	if err := m.look(ctx); err != nil {
		return err
	}
	return m.strikeCounted()
}

// look is refresh without asking the index.
func (m *marker) look(ctx context.Context) error {
	for _, top := range rootDirs {
		if err := m.refreshDir(ctx, top); err != nil {
			return err
		}
	}
	return nil
}

// named tells if a ref named a commit at the last look, or reached it through others.
func (m *marker) named(c object.Checksum) bool {
	_, counted := m.counted[c]
	_, walked := m.heads[c]
	return counted || walked
}

// walk gives up asking the index: the next refresh walks all commits.
func (m *marker) walk() {
	m.asks, m.counted, m.dirs = false, map[object.Checksum]struct{}{}, map[string]*refDir{}
}

// refreshDir reads a directory of refs again if it has changed, or may have.
func (m *marker) refreshDir(ctx context.Context, p string) error {
	if p == layerRefsDir && m.asks && m.going != nil && m.r.sealed() && m.unnamed() {
		return nil // the index counts the commits of all layers
	}
	var st unix.Stat_t
	switch err := lstat(m.r.fd(), p, &st); {
	case err == unix.ENOENT:
		delete(m.dirs, p)
		return nil
	case err != nil:
		return &os.PathError{Op: "list refs", Path: p, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	}
	d := m.dirs[p]
	if d == nil || !d.settled || d.changed != st.Ctim {
		var err error
		if d, err = m.readDir(ctx, p, &st, d); err != nil {
			return err
		}
	}
	for _, sub := range d.subdirs {
		if err := m.refreshDir(ctx, sub); err != nil {
			return err
		}
	}
	return nil
}

// unnamed tells if none of the commits of the removal has a counted ref besides.
func (m *marker) unnamed() bool {
	for c, n := range m.going {
		if ino, names := m.r.countedNames(c); ino == 0 || names != n {
			return false
		}
	}
	return true
}

// readDir reads a directory of refs and marks what is new in it.
func (m *marker) readDir(ctx context.Context, p string, st *unix.Stat_t, old *refDir) (*refDir, error) {
	d := &refDir{files: map[string]unix.Timespec{}}
	d.changed, d.settled = since(st, time.Now())
	names, err := m.notCounted(p)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		at := path.Join(p, name)
		var st unix.Stat_t
		if err := lstat(m.r.fd(), at, &st); err == unix.ENOENT {
			continue
		} else if err != nil {
			return nil, &os.PathError{Op: "read ref", Path: at, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			d.subdirs = append(d.subdirs, at)
			continue
		}
		if !isFragment(name) {
			continue
		}
		alias := st.Mode&unix.S_IFMT == unix.S_IFLNK
		if old != nil && !alias && old.files[name] == st.Ctim {
			d.files[name] = st.Ctim
			continue
		}
		if changed, settled := since(&st, time.Now()); settled {
			d.files[name] = changed
		}
		if err := m.markRef(ctx, at); err != nil {
			return nil, err
		}
	}
	m.dirs[p] = d
	return d, nil
}

// notCounted lists a directory of refs but for those that are counted, and notes what these name.
func (m *marker) notCounted(p string) ([]string, error) {
	if p != layerRefsDir || !m.asks || !m.r.local() {
		return m.r.list(p)
	}
	counted, rest, err := m.r.countedRefs(p)
	for _, c := range counted {
		m.counted[c] = struct{}{}
	}
	return rest, err
}

func (m *marker) markRef(ctx context.Context, p string) error {
	c, err := m.r.readRef(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // vanished, or an alias of nothing
	}
	if err != nil {
		return err
	}
	return m.markCommit(ctx, c)
}

// markCommit strikes a commit and all that it reaches, its ancestors too.
func (m *marker) markCommit(ctx context.Context, c object.Checksum) error {
	for !c.IsZero() {
		if _, ok := m.heads[c]; ok {
			return nil
		}
		if m.asks && m.r.knows(c) {
			m.counted[c] = struct{}{}
			return nil
		}
		m.heads[c] = struct{}{}
		commit, err := (&Objects{m.r}).ReadCommit(c)
		if isMissing(err) {
			return nil // an ancestor that is not kept, or a ref to nothing
		}
		if err != nil {
			return fmt.Errorf("find what refs reach: %w", err)
		}
		delete(m.want, object.Name{Checksum: c, Type: object.TypeCommit})
		err = m.r.eachReached(ctx, commit, m.trees, func(n object.Name) { delete(m.want, n) })
		if err != nil {
			return fmt.Errorf("find what refs reach: %w", err)
		}
		c = commit.Parent
	}
	return nil
}

// eachReached visits what a commit's tree consists of, each dirtree and what it names once. Trees in seen are left out,
// and those that are visited are added. What is missing is visited and goes no further. So does what is damaged, but then
// the error is the first *CorruptError.
func (r *root) eachReached(ctx context.Context, c *object.Commit, seen map[object.Checksum]struct{},
	visit func(object.Name)) error {
	visit(object.Name{Checksum: c.Meta, Type: object.TypeDirMeta})
	todo := []object.Checksum{c.Tree}
	var damaged error
	for len(todo) > 0 {
		sum := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := seen[sum]; ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		seen[sum] = struct{}{}
		visit(object.Name{Checksum: sum, Type: object.TypeDirTree})
		tree, err := (&Objects{r}).ReadDirTree(sum)
		if isMissing(err) {
			continue
		}
		if isCorrupt(err) {
			damaged = cmp.Or(damaged, err)
			continue
		}
		if err != nil {
			return err
		}
		for _, f := range tree.Files {
			visit(object.Name{Checksum: f.Checksum, Type: object.TypeFile})
		}
		for _, d := range tree.Dirs {
			visit(object.Name{Checksum: d.Meta, Type: object.TypeDirMeta})
			todo = append(todo, d.Tree)
		}
	}
	return damaged
}
