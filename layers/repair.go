package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// RepairOptions say what repairing a layer may rely on.
type RepairOptions struct {
	DryRun bool   // only say what would be done
	Parent string // what the parent is according to containers/storage, for a record that is lost
	Homes  Catalogs
}

// A Mended says what was put right.
type Mended struct {
	Fault
	How string
}

// Repair puts right what of a layer can be made again from what is good: the record from the ref, the ref from the record, the list of
// inodes from the tree, entries of the tree from their objects. Objects must have been mended before. Nothing is deleted but what is
// replaced; what the commit does not know is left where it is.
func (c *Catalog) Repair(ctx context.Context, id string, o RepairOptions) ([]Mended, error) {
	if o.Homes == nil {
		o.Homes = Catalogs{c}
	}
	var found []Fault
	err := c.Check(ctx, CheckOptions{Homes: o.Homes, Only: []string{id}}, func(f Fault) { found = append(found, f) })
	if err != nil {
		return nil, err
	}
	var done []Mended
	trees := false
	for _, f := range found {
		var how string
		switch f.Kind {
		case FaultRecord:
			how, err = c.mendRecord(ctx, id, o)
		case FaultRef:
			how, err = c.mendRef(id, o)
		case FaultList:
			how, err = c.mendList(id, o)
		case FaultSegment:
			how, err = c.mendSegment(id, o)
		case FaultLedger:
			how, err = c.mendLedger(o.DryRun)
		case FaultTree:
			trees = true
			continue
		default:
			continue
		}
		if err != nil {
			return done, fmt.Errorf("repair layer %s: %w", id, err)
		}
		if how != "" {
			done = append(done, Mended{f, how})
		}
	}
	if trees {
		more, err := c.mendTree(ctx, id, o)
		done = append(done, more...)
		if len(more) > 0 && !o.DryRun {
			now := time.Now() // a ledger sees by the directory's change time that it does not hold
			err = errors.Join(err, c.forgetSegments(id), os.Chtimes(c.home+"/"+layersName+"/"+id, now, now))
		}
		if err != nil {
			return done, fmt.Errorf("repair layer %s: %w", id, err)
		}
	}
	if !o.DryRun && len(done) > 0 {
		return done, c.repo.Sync()
	}
	return done, nil
}

// mendRef gives a layer its ref back.
func (c *Catalog) mendRef(id string, o RepairOptions) (string, error) {
	l, err := c.Layer(id)
	if err != nil || !l.Applied() {
		return "", nil // nothing says what the ref should name
	}
	if _, err := c.repo.ReadCommit(l.Commit); err != nil {
		return "", nil
	}
	if !o.DryRun {
		if err := c.repo.SetRef(layerRef(id), l.Commit); err != nil {
			return "", err
		}
	}
	return "the ref was made from the record", nil
}

// mendList makes the list of inodes anew.
func (c *Catalog) mendList(id string, o RepairOptions) (string, error) {
	l, err := c.Layer(id)
	if err != nil {
		return "", nil
	}
	if !o.DryRun {
		if err := os.Remove(l.inodesPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		list, err := store.OpenInodes(l.inodesPath(), l.TreeDir())
		if err != nil {
			return "", err
		}
		if err := list.Close(); err != nil {
			return "", err
		}
	}
	return "the list was made from the tree", nil
}

// mendRecord makes a record anew: the parent is what containers/storage says, the commit what the ref says.
func (c *Catalog) mendRecord(ctx context.Context, id string, o RepairOptions) (string, error) {
	commit, err := c.repo.Ref(layerRef(id))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	l := &Layer{ID: id, Parent: o.Parent, Commit: commit, catalog: c}
	if old, err := c.Layer(id); err == nil && o.Parent == "" {
		l.Parent = old.Parent
	}
	if l.Parent != "" {
		p, err := o.Homes.Find(l.Parent)
		if err != nil {
			return "", nil // the parent comes first
		}
		l.Ancestors = append([]string{p.ID}, p.Ancestors...)
	}
	err = WalkCommit(ctx, c.repo, commit, func(e *Entry) error {
		l.Entries++
		if e.First == e.Index && (e.Mode&unix.S_IFMT == unix.S_IFREG || e.Mode&unix.S_IFMT == unix.S_IFLNK) {
			l.Size += e.Size
		}
		return nil
	})
	if err != nil {
		return "", nil // the commit must be mended first
	}
	if !o.DryRun {
		if err := writeRecord(l.Dir(), l); err != nil {
			return "", err
		}
	}
	return "the record was made from the ref and the parent", nil
}

// mendTree makes the entries of a tree anew that are not what the commit says.
func (c *Catalog) mendTree(ctx context.Context, id string, o RepairOptions) ([]Mended, error) {
	l, err := c.Layer(id)
	if err != nil {
		return nil, err
	}
	root, err := openDirAt(unix.AT_FDCWD, l.TreeDir())
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: l.TreeDir(), Err: err}
	}
	defer unix.Close(root)
	var done []Mended
	m := &treeMender{
		ctx: ctx, c: &checkout{repo: c.repo, root: root, prefix: overlayPrefix(c.o.UserXattr), firsts: map[int]string{}}, dry: o.DryRun,
	}
	t := &treeCheck{l: l, o: &CheckOptions{seen: new(seenInodes)}, ctx: ctx, firsts: m.c.firsts}
	note := func(e *Entry, reason string, how string) {
		done = append(done, Mended{Fault{FaultTree, id, e.Path, reason}, how})
	}
	t.mend = func(dir int, e *Entry, reason string) error {
		err := m.mend(dir, e)
		if err == nil {
			note(e, reason, "made again from its object")
		}
		return err
	}
	t.dress = func(dir int, e *Entry, reason string, mended bool) error {
		err := m.dress(dir, e)
		if err == nil && !mended {
			note(e, reason, "given its metadata again")
		}
		return err
	}
	if err := t.run(); err != nil {
		return done, err
	}
	return done, nil
}

// A treeMender makes entries anew.
type treeMender struct {
	ctx context.Context //nolint:containedctx // lives for one repair
	c   *checkout
	dry bool
}

// mendName is the name of an entry while it is made. The reserved prefix keeps it apart from names of images.
const mendName = whiteoutPrefix + ".mend"

func (m *treeMender) mend(dir int, e *Entry) error {
	if e.object && e.First == e.Index {
		n := object.Name{Checksum: e.Checksum, Type: object.TypeFile}
		if from, err := m.c.repo.Mend(m.ctx, n, store.MendOptions{DryRun: true}); err != nil || from != "" {
			return errors.Join(err, store.ErrNoCopy)
		}
	}
	if m.dry {
		return nil
	}
	if e.IsDir() {
		return m.directory(dir, e)
	}
	if err := unix.Unlinkat(dir, mendName, 0); err != nil && err != unix.ENOENT {
		return err
	}
	fresh := *e
	var err error
	switch {
	case e.Whiteout:
		err = makeWhiteout(dir, mendName, m.c.repo.Label())
	case e.First != e.Index:
		err = m.c.link(dir, mendName, e)
	default:
		err = m.c.inode(dir, mendName, &fresh)
	}
	if err != nil {
		return err
	}
	return unix.Renameat(dir, mendName, dir, filepath.Base(e.Path))
}

// directory makes a directory that is not there.
func (m *treeMender) directory(dir int, e *Entry) error {
	err := unix.Mkdirat(dir, filepath.Base(e.Path), 0o700)
	if err == unix.EEXIST {
		err = fmt.Errorf("something else is in the place of the directory: %w", store.ErrNoCopy)
	}
	return err
}

// dress gives an open directory its metadata.
func (m *treeMender) dress(dir int, e *Entry) error {
	if m.dry {
		return nil
	}
	x := meta{uid: e.UID, gid: e.GID, mode: e.Mode, xattrs: e.Xattrs}
	xattrs, _ := diskXattrs(&x, m.c.prefix)
	if e.Opaque {
		xattrs = append(xattrs[:len(xattrs):len(xattrs)], object.Xattr{Name: m.c.prefix + "opaque", Value: []byte("y")})
	}
	return dressOpenDir(dir, &x, xattrs, m.c.repo.Label(), e.MTime)
}
