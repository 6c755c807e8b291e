package layers

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// A Form is a way to make a merged tree usable as one lower directory: a flat hardlink checkout now, an EROFS image later.
type Form interface {
	// Materialise makes m at the path dst, which does not exist. On error it leaves what it made for the caller to remove.
	Materialise(ctx context.Context, m *Merged, dst string) error
}

// Flat is the Form of a hardlink checkout. Files are links to the inodes in the layers' own `tree/`, so that hardlinks stay what they
// are and no inode appears under two paths. Inodes of their own, whose link count is exact, are copied, and specials made anew.
type Flat struct {
	Copy   bool    // copy every inode, by reflink where the filesystem can: for a place where links are not wanted or not possible
	Labels *Labels // SELinux labels of the root's own, if not nil

	spare string // a directory for further names of inodes of their own, some of whose names are hidden: their link count is exact
	twice bool   // make nothing but the directories that have to be there twice
}

// Materialise implements Form.
func (form Flat) Materialise(ctx context.Context, m *Merged, dst string) error {
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	root, err := openDirAt(unix.AT_FDCWD, dst)
	if err != nil {
		return &os.PathError{Op: "open", Path: dst, Err: err}
	}
	f := &flattener{m: m, ctx: ctx, copy: form.Copy, labels: form.Labels, spare: form.spare, twice: form.twice, made: make(map[inodeID]nodeID)}
	f.to = newTreeDirs(m.tree, root)
	defer f.close()
	if err := f.openLayers(); err != nil {
		return err
	}
	if f.labels != nil {
		err = f.flattenLabelled(dst, root)
	} else {
		err = f.dir(rootNode)
	}
	if err != nil {
		return fmt.Errorf("flatten into %s: %w", dst, err)
	}
	return nil
}

// A flattener makes a flat checkout.
type flattener struct {
	m     *Merged
	ctx   context.Context //nolint:containedctx // lives for one checkout
	copy  bool
	to    *treeDirs
	lists []*store.Inodes // of the chain's layers
	roots []int           // their tree/
	made  map[inodeID]nodeID
	spare string
	extra int // names in spare
	twice bool

	labels *Labels
	own    map[*Catalog]*labelling
}

func (f *flattener) openLayers() (err error) {
	if f.lists, err = openInodeLists(f.m.chain); err != nil {
		return err
	}
	return f.openTrees()
}

func (f *flattener) openTrees() error {
	for _, l := range f.m.chain {
		fd, err := openDirAt(unix.AT_FDCWD, l.TreeDir())
		if err != nil {
			return &os.PathError{Op: "open", Path: l.TreeDir(), Err: err}
		}
		f.roots = append(f.roots, fd)
	}
	return nil
}

func (f *flattener) close() {
	closeInodeLists(f.lists)
	for _, fd := range f.roots {
		unix.Close(fd)
	}
	f.to.close()
}

// dir makes what is in a directory, which exists, and gives it its metadata. No directory stays open while those below are made.
func (f *flattener) dir(id nodeID) error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	if err := f.names(id); err != nil {
		return err
	}
	t := f.m.tree
	err := t.children(id, func(c nodeID) error {
		if t.node(c).kind != kindDir || f.leftOut(c) {
			return nil
		}
		return f.dir(c)
	})
	if err != nil {
		return err
	}
	d, err := f.to.get(id)
	if err != nil {
		return err
	}
	defer d.release()
	i := t.inodeOf(id)
	m := t.metas.get(i.meta)
	prefix := overlayPrefix(f.m.chain[0].catalog.o.UserXattr)
	xattrs, _ := diskXattrs(m, prefix)
	if t.node(id).flags&nodeOpaque != 0 && !f.twice {
		xattrs = append(slices.Clip(xattrs), object.Xattr{Name: prefix + "opaque", Value: []byte("y")})
	}
	label := f.label()
	if own := f.ownLabel(id, m.mode); own != "" {
		label = own
	}
	if err := dressOpenDir(d.fd, m, xattrs, label, i.mtime()); err != nil {
		return fmt.Errorf("%q: %w", t.path(id), err)
	}
	return nil
}

// names makes the names in a directory; its directories are left empty.
func (f *flattener) names(id nodeID) error {
	t := f.m.tree
	d, err := f.to.get(id)
	if err != nil {
		return err
	}
	defer d.release()
	from := make([]int, len(f.m.chain)) // the directory in each layer's tree/, 0 if it was not opened yet
	defer func() {
		for _, fd := range from {
			if fd > 0 {
				unix.Close(fd)
			}
		}
	}()
	return t.children(id, func(c nodeID) error {
		if f.leftOut(c) {
			return nil
		}
		var err error
		switch t.node(c).kind {
		case kindDir:
			err = unix.Mkdirat(d.fd, t.name(c), 0o700)
		case kindWhiteout:
			err = makeWhiteout(d.fd, t.name(c), f.label())
		default:
			err = f.file(d.fd, c, from)
		}
		if err != nil {
			return fmt.Errorf("make %q: %w", t.path(c), err)
		}
		return nil
	})
}

func (f *flattener) leftOut(id nodeID) bool { return f.twice && f.m.tree.node(id).flags&nodeTwice == 0 }

func (f *flattener) label() string { return f.m.chain[0].catalog.repo.Label() }

// file makes one name of something that is no directory.
func (f *flattener) file(dir int, id nodeID, from []int) error {
	t := f.m.tree
	n := t.node(id)
	if first, ok := f.made[n.inode]; ok {
		return f.again(dir, id, first)
	}
	i := t.inode(n.inode)
	if i.names > 1 {
		f.made[n.inode] = id
	}
	layer := int(i.home)
	if from[layer] == 0 {
		fd, err := f.openLayerDir(layer, t.node(id).parent)
		if err != nil {
			return err
		}
		from[layer] = fd
	}
	return f.first(dir, id, from[layer], layer)
}

// again makes a further name of an inode that is there.
func (f *flattener) again(dir int, id, first nodeID) error {
	t := f.m.tree
	f.compareLabels(id, first)
	d, err := f.to.get(t.node(first).parent)
	if err != nil {
		return err
	}
	defer d.release()
	return unix.Linkat(d.fd, t.name(first), dir, t.name(id), 0)
}

func (f *flattener) openLayerDir(layer int, dir nodeID) (int, error) {
	if dir == rootNode {
		return openDirAt(f.roots[layer], ".")
	}
	return openTarDir(f.roots[layer], "/"+f.m.tree.path(dir))
}

// first links the inode of a layer, or copies it if its link count counts.
func (f *flattener) first(dir int, id nodeID, from, layer int) error {
	name := f.m.tree.name(id)
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	shared := !f.copy && f.lists[layer].Contains(st.Ino)
	label := f.ownLabel(id, st.Mode)
	if label != "" {
		f.labels.Labelled++
	}
	if shared && label != "" && label != f.m.chain[layer].catalog.repo.Label() {
		return f.lane(dir, id, from, layer, label)
	}
	if shared {
		err := unix.Linkat(from, name, dir, name, 0)
		if err != unix.EMLINK {
			return err
		}
	}
	if err := copyInode(dir, name, from, &st, label); err != nil || f.spare == "" {
		return err
	}
	for n := uint64(f.m.tree.inodeOf(id).names); n < uint64(st.Nlink) && !f.lists[layer].Contains(st.Ino); n++ {
		f.extra++
		if err := unix.Linkat(dir, name, unix.AT_FDCWD, f.spare+"/"+strconv.Itoa(f.extra), 0); err != nil {
			return err
		}
	}
	return nil
}
