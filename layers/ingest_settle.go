package layers

import (
	"fmt"
	"io"
	"os"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// dress is the function of that name with what g knows.
func (g *ingest) dress(dir int, name string, m *meta, t store.Time) error {
	xattrs, _ := diskXattrs(m, g.prefix)
	return dress(dir, name, m, xattrs, g.label, t)
}

// storeFile is what the store wants to know about the inode of a file or symlink.
func (g *ingest) storeFile(id nodeID) store.File {
	n := g.tree.node(id)
	i := g.tree.inode(n.inode)
	m := g.tree.metas.get(i.meta)
	f := store.File{
		Header:  object.FileHeader{UID: m.uid, GID: m.gid, Mode: m.mode, Xattrs: m.stored()},
		MTime:   i.mtime(),
		Private: i.flags&inodePrivate != 0,
	}
	if n.kind == kindSymlink {
		f.Header.Target = g.tree.target(id)
	}
	if list, special := diskXattrs(m, g.prefix); special {
		f.Inode, f.Private = list, true
	}
	return f
}

// put gives the first name of an inode to the workers.
func (g *ingest) put(id nodeID, entry string, size int64, body tarBody) error {
	n := g.tree.node(id)
	t := placement{name: g.tree.name(id), entry: entry, file: g.storeFile(id), to: g.tree.inode(n.inode), size: size}
	var err error
	if size <= maxWhole {
		if t.body, err = g.place.read(body, size, size); err != nil {
			return err
		}
	} else if err := g.fits(size); err != nil {
		return err
	}
	n.flags |= nodeMade
	if size <= maxWhole {
		return g.place.whole(n.parent, t)
	}
	return g.place.feed(n.parent, t, body)
}

// fits refuses what can only be a sparse file made to keep a machine busy.
func (g *ingest) fits(size int64) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(g.stage.Dir().Fd()), &fs); err != nil {
		return fmt.Errorf("look at the filesystem: %w", err)
	}
	if size > int64(fs.Blocks)*int64(fs.Bsize) {
		return errSparseLarge
	}
	return nil
}

// settle makes the tree on disk what the tree in memory says, so that names can be removed: it waits for the workers, places files again whose
// metadata changed, and makes the hardlinks.
func (g *ingest) settle() error {
	if err := g.place.drain(); err != nil {
		return err
	}
	for _, id := range g.stale {
		if err := g.replace(id); err != nil {
			return g.fail(g.tree.path(g.tree.inode(id).home), err)
		}
	}
	g.stale = g.stale[:0]
	for _, id := range g.links {
		if err := g.link(id); err != nil {
			return g.fail(g.tree.path(id), err)
		}
	}
	g.links = g.links[:0]
	return nil
}

// link makes a further name of an inode on disk.
func (g *ingest) link(id nodeID) error {
	n := g.tree.node(id)
	if n.kind == kindNone || n.flags&nodeMade != 0 {
		return nil
	}
	home := g.tree.inode(n.inode).home
	from, err := g.dirs.get(g.tree.node(home).parent)
	if err != nil {
		return err
	}
	defer from.release()
	to, err := g.dirs.get(n.parent)
	if err != nil {
		return err
	}
	defer to.release()
	if err := unix.Linkat(from.fd, g.tree.name(home), to.fd, g.tree.name(id), 0); err != nil {
		return fmt.Errorf("make the hardlink: %w", err)
	}
	n.flags |= nodeMade
	return nil
}

// replace makes an inode anew that was placed with other metadata than it has now.
func (g *ingest) replace(ino inodeID) error {
	i := g.tree.inode(ino)
	i.flags &^= inodeStale
	if i.names == 0 {
		return nil
	}
	home := g.tree.node(i.home)
	d, err := g.dirs.get(home.parent)
	if err != nil {
		return err
	}
	defer d.release()
	name := g.tree.name(i.home)
	if i.placed == 0 { // never given to the store: changed in place, for all its names
		return g.dress(d.fd, name, g.tree.metas.get(i.meta), i.mtime())
	}
	var old *os.File
	if home.kind == kindFile {
		if old, err = openAt(d.fd, name); err != nil {
			return err
		}
		defer old.Close()
	}
	if err := g.forget(d.fd, name, i, home.kind); err != nil {
		return err
	}
	if err := g.unmake(ino); err != nil {
		return err
	}
	placed, err := g.putAgain(d.fd, name, g.storeFile(i.home), int64(i.val), old)
	if err != nil {
		return err
	}
	home.flags |= nodeMade
	g.place.record(i, i.mtime(), placed)
	return nil
}

// unmake removes all names of an inode from the disk. All but its home are linked again later.
func (g *ingest) unmake(ino inodeID) error {
	i := g.tree.inode(ino)
	for _, id := range append([]nodeID{i.home}, g.groups[ino]...) {
		n := g.tree.node(id)
		if n.kind == kindNone || n.flags&nodeMade == 0 {
			continue
		}
		d, err := g.dirs.get(n.parent)
		if err != nil {
			return err
		}
		err = unix.Unlinkat(d.fd, g.tree.name(id), 0)
		d.release()
		if err != nil {
			return fmt.Errorf("remove the name: %w", err)
		}
		n.flags &^= nodeMade
		if id != i.home {
			g.links = append(g.links, id)
		}
	}
	return nil
}

// putAgain places a file whose body is that of an open one.
func (g *ingest) putAgain(dir int, name string, f store.File, size int64, old *os.File) (store.Placed, error) {
	if old == nil {
		return g.stage.PutFile(dir, name, f, nil)
	}
	if size > maxWhole {
		return g.stage.PutStream(dir, name, f, size, old)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(old, body); err != nil {
		return store.Placed{}, fmt.Errorf("read the file again: %w", err)
	}
	return g.stage.PutFile(dir, name, f, body)
}

func openAt(dir int, name string) (*os.File, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// remove takes a name, and all below it, out of the tree, because an entry of the tar replaces it.
func (g *ingest) remove(id nodeID) error {
	if g.tree.node(id).kind != kindWhiteout {
		if err := g.settle(); err != nil {
			return err
		}
	}
	g.find.forget()
	g.moved = g.moved || g.tree.node(id).kind == kindDir || g.tree.isSymlink(id)
	return g.removeTree(id)
}

func (g *ingest) removeTree(id nodeID) error {
	n := g.tree.node(id)
	flags := 0
	if n.kind == kindDir {
		if err := g.tree.children(id, g.removeTree); err != nil {
			return err
		}
		g.dirs.forget(id)
		flags = unix.AT_REMOVEDIR
	}
	d, err := g.dirs.get(n.parent)
	if err != nil {
		return err
	}
	defer d.release()
	name, kind, ino := g.tree.name(id), n.kind, n.inode
	if i := g.tree.inode(ino); (kind == kindFile || kind == kindSymlink) && i.names == 1 {
		if err := g.forget(d.fd, name, i, kind); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(d.fd, name, flags); err != nil {
		return fmt.Errorf("remove what it replaces: %w", err)
	}
	g.tree.drop(id)
	if kind != kindDir && kind != kindWhiteout {
		g.dropped(id, ino)
	}
	return nil
}

// forget tells the store that a file, which is still on disk, goes.
func (g *ingest) forget(dir int, name string, i *inode, kind nodeKind) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("look at what goes: %w", err)
	}
	placed := g.place.placed(i, kind)
	placed.Ino = st.Ino
	g.stage.Forget(placed)
	return nil
}

// dropped sees to the inode of a name that is gone.
func (g *ingest) dropped(id nodeID, ino inodeID) {
	i := g.tree.inode(ino)
	if i.names == 0 {
		delete(g.groups, ino)
		return
	}
	if i.home != id {
		return
	}
	for list := g.groups[ino]; len(list) > 0; list = list[:len(list)-1] {
		last := list[len(list)-1]
		g.groups[ino] = list[:len(list)-1]
		if g.tree.node(last).kind != kindNone {
			i.home = last
			return
		}
	}
}
