package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
)

// CreateOptions says what Create makes.
type CreateOptions struct {
	ReadWrite bool
	// Chain is the parent and its ancestors, nearest first, as Catalogs.Chain returns them. It may be nil if the parent is in this catalog.
	Chain []*Layer
	// RootUID and RootGID own the root of a layer without a parent: the container's root on disk.
	RootUID, RootGID uint32
	// RootMode, if not nil, is the mode of the root in place of the parent's or 0555.
	RootMode *uint32
}

// defaultRootMode is the mode of a root that nothing says anything about.
const defaultRootMode = 0o555

// Create makes an empty layer: `diff/`, `work/`, `merged/` and the record. The root's owner and mode are those of the parent's
// root, else 0555. Whatever there was under that id before is removed.
func (c *Catalog) Create(id, parent string, o CreateOptions) (*Layer, error) {
	if err := checkLayerID(id); err != nil {
		return nil, err
	}
	l, err := c.create(id, parent, o)
	if err != nil {
		return nil, fmt.Errorf("create layer %s: %w", id, err)
	}
	return l, nil
}

func (c *Catalog) create(id, parent string, o CreateOptions) (*Layer, error) {
	l := &Layer{ID: id, Parent: parent, ReadWrite: o.ReadWrite, catalog: c}
	root := RootMeta{UID: o.RootUID, GID: o.RootGID, Mode: defaultRootMode}
	if parent != "" {
		p, err := c.parent(parent, o.Chain)
		if err != nil {
			return nil, err
		}
		l.Ancestors = append([]string{p.ID}, p.Ancestors...)
		l.brief = p.catalog == c
		if root, err = p.rootMeta(); err != nil {
			return nil, err
		}
	}
	if o.RootMode != nil {
		root.Mode = *o.RootMode
	}
	if slices.Contains(l.Ancestors, id) {
		return nil, fmt.Errorf("its own ancestor: %w", ErrInUse)
	}
	if err := c.clear(id); err != nil {
		return nil, err
	}
	if err := c.makeDirs(l, root); err != nil {
		return nil, errors.Join(err, c.clear(id))
	}
	return l, nil
}

// parent takes the parent from its chain, or finds it here.
func (c *Catalog) parent(id string, chain []*Layer) (*Layer, error) {
	if len(chain) == 0 {
		return c.Layer(id)
	}
	if chain[0].ID != id || len(chain[0].Ancestors) != len(chain)-1 {
		return nil, fmt.Errorf("not the chain of parent %s", id)
	}
	return chain[0], nil
}

func (c *Catalog) makeDirs(l *Layer, root RootMeta) error {
	dir := l.Dir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{diffName, workName, mergedName} {
		if err := unix.Mkdir(dir+"/"+name, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: dir + "/" + name, Err: err}
		}
	}
	if err := os.Lchown(l.DiffDir(), int(root.UID), int(root.GID)); err != nil {
		return err
	}
	if err := unix.Chmod(l.DiffDir(), root.Mode); err != nil {
		return &os.PathError{Op: "chmod", Path: l.DiffDir(), Err: err}
	}
	for _, name := range []string{workName, mergedName} {
		if err := os.Lchown(dir+"/"+name, int(root.UID), int(root.GID)); err != nil {
			return err
		}
	}
	return writeRecord(dir, l)
}

// clear removes what there is under an id, now.
func (c *Catalog) clear(id string) error {
	cleanup, err := c.Remove(id)
	if errors.Is(err, ErrUnknown) {
		return nil
	}
	return errors.Join(err, cleanup())
}

// Remove forgets a layer at once: its ref is dropped and its directory moved aside. The returned function does the rest, unlinks
// the files and frees objects, and can be called without any lock; it is never nil. The error matches ErrUnknown if nothing was there.
func (c *Catalog) Remove(id string) (cleanup func() error, err error) {
	nothing := func() error { return nil }
	if err := checkLayerID(id); err != nil {
		return nothing, fmt.Errorf("%w: %w", err, ErrUnknown)
	}
	var st unix.Stat_t
	err = unix.Fstatat(int(c.layers.Fd()), id, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nothing, fmt.Errorf("layer %s: %w", id, ErrUnknown)
	}
	if err != nil {
		return nothing, fmt.Errorf("remove layer %s: %w", id, err)
	}
	t, err := c.repo.MoveToTrash(c.layers, id, layerRef(id))
	if err != nil {
		return nothing, fmt.Errorf("remove layer %s: %w", id, err)
	}
	t.Beside, t.Lists = c.o.sources(), c.lists(maxAsked)
	return func() error {
		if err := t.Remove(); err != nil {
			return fmt.Errorf("remove what layer %s left: %w", id, err)
		}
		return nil
	}, nil
}

// maxAsked is how many layers a removal asks what they use: what it costs is not to follow from the size of the store.
const maxAsked = 1000

// errMany says that a removal asks nobody, since there are too many.
var errMany = errors.New("too many layers to ask")

// lists returns what visits the inode lists of all layers until visit returns false, if they are not more than most.
func (c *Catalog) lists(most int) func(visit func(*store.Inodes) bool) error {
	return func(visit func(*store.Inodes) bool) error {
		ids, err := c.IDs()
		if err == nil && len(ids) > most {
			err = errMany
		}
		more := true
		for i := 0; i < len(ids) && err == nil && more; i++ {
			more, err = c.visitList(ids[i], visit)
		}
		return err
	}
}

// visitList visits the inode list of a layer. A container has none, nor has what is gone meanwhile.
func (c *Catalog) visitList(id string, visit func(*store.Inodes) bool) (more bool, err error) {
	l := &Layer{ID: id, catalog: c}
	list, err := store.OpenInodes(l.inodesPath(), l.TreeDir())
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	more = visit(list)
	return more, list.Close()
}

// DropUnusedLanes drops a catalog's names of lanes that none of its layers uses, though other stores have the inodes.
func DropUnusedLanes(ctx context.Context, c *Catalog) (store.Freed, error) {
	return store.DropUnusedLanes(ctx, c.repo, c.lists(math.MaxInt))
}
