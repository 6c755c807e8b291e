package layers

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// A finisher gives the directories of a complete tree their metadata and stages the tree's metadata objects, bottom-up.
type finisher struct {
	*ingest
	crew crew

	mu       sync.Mutex
	dirmetas map[metaID]object.Checksum
	settled  map[metaID]meta // as the filesystem has them
	loose    *store.Placed   // the whiteouts' object
}

// finish stages the commit of the tree.
func (g *ingest) finish(ctx context.Context) (*Staged, error) {
	g.stage.WriteOut()
	g.forceRoot()
	g.retime()
	m, entries, size, err := encodeTree(g.tree)
	if err != nil {
		return nil, g.fail("", err)
	}
	f := &finisher{ingest: g, crew: newCrew(), dirmetas: make(map[metaID]object.Checksum), settled: make(map[metaID]meta)}
	dirmeta, err := f.directory(ctx, rootNode)
	if err != nil {
		return nil, err
	}
	commit, err := g.stage.PutCommit(layerCommit(m, g.tree.inodeOf(rootNode).sum, dirmeta))
	if err != nil {
		return nil, fmt.Errorf("stage the commit: %w", err)
	}
	return &Staged{commit: commit, entries: entries, size: size, finisher: f}, nil
}

// directory finishes a directory and all below it and returns the checksum of its dirmeta. That of its dirtree goes to the inode.
func (f *finisher) directory(ctx context.Context, id nodeID) (object.Checksum, error) {
	if err := ctx.Err(); err != nil {
		return object.Checksum{}, err
	}
	list, err := f.tree.sorted(id)
	if err != nil {
		return object.Checksum{}, err
	}
	files := list
	if i := slices.IndexFunc(list, func(c namedNode) bool { return c.dir }); i >= 0 {
		files = list[:i]
	}
	tree := object.DirTree{Dirs: make([]object.TreeDir, len(list)-len(files))}
	err = f.crew.each(len(tree.Dirs), func(i int) error {
		c := list[len(files)+i]
		dirmeta, err := f.directory(ctx, c.id)
		tree.Dirs[i] = object.TreeDir{Name: c.name, Tree: f.tree.inodeOf(c.id).sum, Meta: dirmeta}
		return err
	})
	if err != nil {
		return object.Checksum{}, err
	}
	for _, c := range files {
		sum, ok, err := f.fileObject(c.id)
		if err != nil {
			return object.Checksum{}, err
		}
		if ok {
			tree.Files = append(tree.Files, object.TreeFile{Name: c.name, Checksum: sum})
		}
	}
	sum, err := f.stage.PutDirTree(&tree)
	if err != nil {
		return object.Checksum{}, fmt.Errorf("stage the tree of %s: %w", f.tree.path(id), err)
	}
	f.tree.inodeOf(id).sum = sum
	dirmeta, err := f.dressDir(id)
	if err != nil {
		return object.Checksum{}, f.fail(f.tree.path(id), err)
	}
	return dirmeta, nil
}

// fileObject returns the object of an entry that is no directory; specials have none.
func (f *finisher) fileObject(id nodeID) (object.Checksum, bool, error) {
	if id == noNode || f.tree.node(id).kind == kindWhiteout {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.loose == nil {
			p, err := f.stage.PutLoose(store.File{Header: whiteoutHeader}, nil)
			if err != nil {
				return object.Checksum{}, false, fmt.Errorf("stage the whiteout: %w", err)
			}
			f.loose = &p
		}
		return f.loose.Checksum, true, nil
	}
	if f.tree.isSpecial(id) {
		return object.Checksum{}, false, nil
	}
	return f.tree.inodeOf(id).sum, true, nil
}

// dressDir gives a directory on disk its metadata and stages its dirmeta.
func (f *finisher) dressDir(id nodeID) (object.Checksum, error) {
	n, i := f.tree.node(id), f.tree.inodeOf(id)
	m, sum, err := f.dirmeta(i.meta)
	if err != nil {
		return object.Checksum{}, err
	}
	d, err := f.dirs.get(id)
	if err != nil {
		return object.Checksum{}, err
	}
	defer d.release()
	disk := m
	if id == rootNode && n.flags&nodeImplied != 0 && f.o.rootMeta != nil {
		disk.uid, disk.gid, disk.mode = f.o.rootMeta.UID, f.o.rootMeta.GID, unix.S_IFDIR|f.o.rootMeta.Mode
	}
	xattrs, _ := diskXattrs(&disk, f.prefix)
	if n.flags&nodeOpaque != 0 {
		xattrs = append(xattrs, object.Xattr{Name: f.prefix + "opaque", Value: []byte("y")})
	}
	return sum, dressOpenDir(d.fd, &disk, xattrs, f.label, i.mtime())
}

// dirmeta returns a directory's meta as the filesystem has it, and its dirmeta, which is staged.
func (f *finisher) dirmeta(id metaID) (meta, object.Checksum, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.asStored(id)
	if err != nil {
		return m, object.Checksum{}, err
	}
	sum, ok := f.dirmetas[id]
	if !ok {
		if sum, err = f.stage.PutDirMeta(&object.DirMeta{UID: m.uid, GID: m.gid, Mode: m.mode, Xattrs: m.stored()}); err != nil {
			return m, sum, fmt.Errorf("stage the dirmeta: %w", err)
		}
		f.dirmetas[id] = sum
	}
	return m, sum, nil
}

// asStored returns a meta as the filesystem has it.
func (f *finisher) asStored(id metaID) (meta, error) {
	m := *f.tree.metas.get(id)
	if !hasACL(m.xattrs) {
		return m, nil
	}
	if s, ok := f.settled[id]; ok {
		return s, nil
	}
	var err error
	if m.mode, m.xattrs, err = f.stage.Settle(m.mode, m.xattrs); err != nil {
		return m, err
	}
	f.settled[id] = m
	return m, nil
}

// publish makes the staged commit part of the repository. The store may put another inode under a name, and keeps the times
// of directories; further names of an inode are why it does not do so with hardlinks.
func (f *finisher) publish(ctx context.Context, ref string, commit object.Checksum) error {
	return f.stage.Publish(ctx, ref, commit, func(link func(int, string, store.Placed) error) error {
		return f.publishDir(rootNode, link)
	})
}

// publishDir publishes the files of a directory and those below. No directory stays open while those below are looked at.
func (f *finisher) publishDir(id nodeID, link func(int, string, store.Placed) error) error {
	var below []nodeID
	var d *treeDir
	err := f.tree.children(id, func(c nodeID) (err error) {
		n := f.tree.node(c)
		if n.kind == kindDir {
			below = append(below, c)
		}
		if n.kind != kindFile && n.kind != kindSymlink {
			return nil
		}
		i := f.tree.inode(n.inode)
		if i.home != c || i.placed == 0 {
			return nil
		}
		if d == nil {
			if d, err = f.dirs.get(id); err != nil {
				return err
			}
		}
		return link(d.fd, f.tree.name(c), f.place.placed(i, n.kind))
	})
	if d != nil {
		d.release()
	}
	if err != nil {
		return err
	}
	return f.crew.each(len(below), func(i int) error { return f.publishDir(below[i], link) })
}
