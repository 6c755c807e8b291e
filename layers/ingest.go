package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ostree-storage/ostree-storage/store"
	"golang.org/x/sys/unix"
)

// An ingest turns one layer tar into a tree on disk and in memory. One goroutine reads the tar and makes directories, devices and whiteouts;
// a placer's workers hash, write and link the files. The rules are those of overlay's extraction in containers/storage, entry by entry.
type ingest struct {
	o      StageOptions
	opts   *Options
	stage  *store.Stage
	memory region
	tree   *layerTree
	find   resolver
	dirs   *treeDirs
	place  *placer
	in     *readAhead
	label  string
	prefix string // of the attributes that overlayfs acts on
	owners ownable
	root   meta // owner of what the tar does not list

	links  []nodeID             // names of inodes that exist under another name, to be linked later
	stale  []inodeID            // inodes whose metadata changed after they were placed
	groups map[inodeID][]nodeID // further names of inodes, in the order of the tar
	listed slab[dirListing]     // every directory that the tar lists, each time that it does
	moved  bool                 // a directory or a symlink was replaced
}

// read reads the whole tar.
func (g *ingest) read(ctx context.Context, r io.Reader) error {
	g.in = newReadAhead(ctx, r)
	defer g.in.close()
	tr := tar.NewReader(g.in)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return g.fail("", fmt.Errorf("read the tar: %w", err))
		}
		if err := g.entry(hdr, tr); err != nil {
			return g.fail(hdr.Name, err)
		}
		if err := g.place.failed(); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, g.in); err != nil {
		return g.fail("", fmt.Errorf("read the tar's padding: %w", err))
	}
	return g.settle()
}

// fail makes err name the layer and the entry, unless it does so already.
func (g *ingest) fail(entry string, err error) error {
	var known *EntryError
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &EntryError{Layer: g.o.ID, Path: entry, Err: err}
}

// Errors about entries. They are wrapped in an EntryError.
var (
	errRootType = errors.New("the layer's root must be a directory")
	errType     = errors.New("unknown type of entry")
	// What containers/storage keeps of such an entry does not say where the holes were: the layer could not be given back.
	errOldSparse   = errors.New("sparse file in GNU's old form (tar header type 'S'), which the overlay driver refuses too: pack it with tar --format=posix")
	errWhiteout    = errors.New("invalid whiteout")
	errName        = errors.New("invalid name")
	errOwner       = errors.New("owner is out of range")
	errDeep        = errors.New("directory is too deep")
	errNameClash   = errors.New("name is taken by a whiteout")
	errSparseLarge = errors.New("sparse file is larger than the filesystem")
)

// maxDepth is how deep directories may be: every reader of a tree, libostree's recursion among them, must be able to follow.
const maxDepth = 16 << 10

// entry does what one entry of the tar says.
func (g *ingest) entry(hdr *tar.Header, body io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	dir, base := splitName(hdr.Name)
	if base == "." {
		if hdr.Typeflag != tar.TypeDir {
			return errRootType
		}
		return g.directory(rootNode, hdr)
	}
	if !validRawName(base) && !(len(base) <= len(whiteoutPrefix)+maxName && isWhiteoutName(base)) {
		return fmt.Errorf("%w: %w", errName, unix.ENAMETOOLONG)
	}
	parent, err := g.parent(dir)
	if isWhiteoutName(base) {
		if errors.Is(err, unix.ENOTDIR) {
			return nil // what it would hide is hidden, or replaced, as a whole
		}
		if err != nil {
			return err
		}
		return g.whiteout(parent, base)
	}
	if err != nil {
		return err
	}
	return g.named(parent, base, hdr, body)
}

// named makes an entry that is no whiteout.
func (g *ingest) named(parent nodeID, base string, hdr *tar.Header, body io.Reader) error {
	kind := g.typeflag(hdr)
	old := g.tree.child(parent, base)
	if old != noNode && (kind != tar.TypeDir || g.tree.node(old).kind != kindDir) {
		if err := g.remove(old); err != nil {
			return err
		}
		old = noNode
	}
	switch kind {
	case tar.TypeDir:
		if old == noNode {
			var err error
			if old, err = g.mkdir(parent, base); err != nil {
				return err
			}
		}
		return g.directory(old, hdr)
	case tar.TypeReg:
		return g.file(parent, base, hdr, body)
	case tar.TypeGNUSparse:
		return errOldSparse
	case tar.TypeSymlink:
		return g.symlink(parent, base, hdr)
	case tar.TypeLink:
		return g.hardlink(parent, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if g.opts.UserXattr && kind != tar.TypeFifo {
			return nil // a user namespace can make no devices
		}
		return g.device(parent, base, hdr)
	}
	return fmt.Errorf("%w %q", errType, hdr.Typeflag)
}

// parent returns the directory that an entry goes into, and makes what is missing of it.
func (g *ingest) parent(dir string) (nodeID, error) {
	p, err := g.find.locate(dir)
	if err != nil {
		return noNode, err
	}
	at := p.node
	for _, name := range p.missing {
		if !validRawName(name) {
			return noNode, fmt.Errorf("%w: %w", errName, unix.ENAMETOOLONG)
		}
		if at, err = g.mkdir(at, name); err != nil {
			return noNode, err
		}
		g.tree.node(at).flags |= nodeImplied
	}
	return at, nil
}

// mtime is the time that overlay's extraction gives an entry: what is before 1970 or does not fit 64 bits of nanoseconds becomes
// 1970, except for symlinks.
func mtime(hdr *tar.Header) store.Time {
	ns := hdr.ModTime.UnixNano()
	if hdr.Typeflag != tar.TypeSymlink && (hdr.ModTime.Before(time.Unix(0, 0)) || hdr.ModTime.After(time.Unix(0, 1<<63-1))) {
		ns = 0
	}
	t := store.Time{Sec: ns / 1e9}
	rest := ns % 1e9
	if rest < 0 {
		t.Sec--
		rest += 1e9
	}
	t.Nsec = uint32(rest)
	return t
}
