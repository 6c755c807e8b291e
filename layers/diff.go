package layers

import (
	"archive/tar"
	"bufio"
	"context"
	"io"
)

// An IDMap maps Size consecutive ids: ContainerID and those after it inside a container are HostID and those after it on disk.
type IDMap struct {
	ContainerID, HostID, Size int
}

// DiffOptions says what WriteDiff writes.
type DiffOptions struct {
	// Upper is the overlay upper directory (or any overlay-native layer directory) whose content becomes the tar.
	Upper string
	// Lowers are the overlay-native directories below it, nearest first. They decide which opaque directories are said to hide something.
	Lowers []string
	// UIDMaps and GIDMaps turn the owners on disk into those of the tar. With both empty, owners are taken as they are.
	UIDMaps, GIDMaps []IDMap
	// UserXattr says that Upper's overlay marks are `user.overlay.*`, as in a user namespace, and not `trusted.overlay.*`.
	UserXattr bool
	// AllXattrs writes every extended attribute except the SELinux label, with those of overlayfs unescaped.
	// Without it, the tar has what containers/storage writes: user.*, security.capability and security.ima.
	AllXattrs bool
	// Dialect is the form of tar that the host program's own overlay driver writes.
	Dialect TarDialect
	// Skipped, if set, is told of each entry that was left out, and why: it vanished during the walk or its owner has no mapping.
	Skipped func(path string, err error)
}

// WriteDiff writes the layer tar of an overlay upper directory: byte for byte the one that the overlay driver of
// containers/storage makes, so that a committed container gets the same DiffID under both drivers. Sockets are left out.
// It may run while a container writes to Upper; a file that shrinks while it is copied is an error.
func WriteDiff(ctx context.Context, w io.Writer, o DiffOptions) error {
	lowers, closeLowers, err := openLowers(o.Lowers)
	if err != nil {
		return err
	}
	defer closeLowers()
	t := newTreeTar(w, TreeOptions{UIDMaps: o.UIDMaps, GIDMaps: o.GIDMaps, Dialect: o.Dialect, Skipped: o.Skipped})
	if o.AllXattrs {
		t.attrs = func(a attrSource) (map[string]string, error) { return allAttrs(a, t.ids, o.UserXattr) }
	}
	v := &diffVisitor{treeTar: t, lowers: lowers, userXattr: o.UserXattr}
	if err := walkTree(ctx, o.Upper, v, t.skip); err != nil {
		return err
	}
	return t.close()
}

// TreeOptions says what WriteTree and WriteNaiveDiff write.
type TreeOptions struct {
	// UIDMaps and GIDMaps turn the owners on disk into those of the tar. With both empty, owners are taken as they are.
	UIDMaps, GIDMaps []IDMap
	// Dialect is the form of tar that the host program's own overlay driver writes.
	Dialect TarDialect
	// Skipped, if set, is told of each entry that was left out, and why.
	Skipped func(path string, err error)
}

// WriteTree writes a tar of a whole merged tree, as Diff does between a layer and nothing when the layer has a parent.
// dir is a mounted root: nothing in it is a whiteout.
func WriteTree(ctx context.Context, w io.Writer, dir string, o TreeOptions) error {
	t := newTreeTar(w, o)
	if err := walkTree(ctx, dir, treeVisitor{t}, t.skip); err != nil {
		return err
	}
	return t.close()
}

// A treeTar writes entries of trees on disk as a tar.
type treeTar struct {
	out     *bufio.Writer
	tw      *tar.Writer
	ids     idMaps
	dialect TarDialect
	names   ownerNames
	attrs   func(a attrSource) (map[string]string, error)
	skipped func(path string, err error)
	seen    map[inodeKey]string // the name that links of an inode have as their target
	buf     []byte
}

func newTreeTar(w io.Writer, o TreeOptions) *treeTar {
	out := bufio.NewWriterSize(w, 256<<10) // headers are small, and w is often a pipe
	t := &treeTar{
		out:     out,
		tw:      tar.NewWriter(out),
		ids:     idMaps{uids: o.UIDMaps, gids: o.GIDMaps},
		dialect: o.Dialect,
		names:   make(ownerNames),
		skipped: o.Skipped,
		seen:    make(map[inodeKey]string),
	}
	t.attrs = func(a attrSource) (map[string]string, error) { return dialectAttrs(a, t.ids, t.dialect) }
	return t
}

func (t *treeTar) close() error {
	if err := t.tw.Close(); err != nil {
		return err
	}
	return t.out.Flush()
}

func (t *treeTar) skip(path string, err error) {
	if t.skipped != nil {
		t.skipped("/"+path, err)
	}
}

// A treeVisitor writes a merged tree.
type treeVisitor struct{ *treeTar }

func (treeVisitor) enter(string) error { return nil }
func (treeVisitor) leave()             {}

func (v treeVisitor) visit(ctx context.Context, e *walkEntry) error {
	hdr, err := v.header(e)
	if err != nil || hdr == nil {
		return err
	}
	return v.write(ctx, e, hdr)
}

// A diffVisitor writes an upper directory, with overlay's marks turned into those of layer tars.
type diffVisitor struct {
	*treeTar
	lowers    lowerTrees
	userXattr bool
	views     [][]lowerAt // what the lowers have at each directory from the root to the one the walk is in
	next      []lowerAt   // the same for the directory that was just visited
}

func (v *diffVisitor) enter(string) error {
	if len(v.views) == 0 {
		v.next = v.lowers.root()
	}
	v.views = append(v.views, v.next)
	return nil
}

func (v *diffVisitor) leave() { v.views = v.views[:len(v.views)-1] }

func (v *diffVisitor) visit(ctx context.Context, e *walkEntry) error {
	view := v.views[len(v.views)-1]
	if e.isDir() {
		next, err := v.lowers.descend(view, e.path)
		if err != nil {
			return err
		}
		v.next = next
	}
	hdr, err := v.header(e)
	if err != nil || hdr == nil {
		return err
	}
	if e.isWhiteout() {
		asWhiteout(hdr)
	}
	if err := v.write(ctx, e, hdr); err != nil || !e.isDir() || len(view) == 0 {
		return err
	}
	opaque, err := isOpaque(e.attrs(), v.userXattr)
	if err != nil || !opaque {
		return err
	}
	hides, err := v.lowers.hides(view, e.path)
	if err != nil || !hides {
		return err
	}
	return v.tw.WriteHeader(opaqueHeader(hdr))
}
