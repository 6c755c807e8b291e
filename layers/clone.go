package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// CloneOptions say how Clone works.
type CloneOptions struct {
	// Unread leaves the content of files unread: what is damaged in the other catalog is then damaged here. Names, sizes, times and
	// all metadata are compared in any case.
	Unread bool
	// Tell, if not nil, gets the number of entries that were made so far, of the layer's Entries.
	Tell func(done int64)
}

// CanClone says why Clone cannot make a layer of another catalog one of c, nil if it can.
func CanClone(c *Catalog, from *Layer) error {
	switch loose, err := from.Loose(); {
	case err != nil:
		return err
	case loose:
		return fmt.Errorf("layer %s was filled through a mount: %w", from.ID, ErrUnsupported)
	}
	if a, b := from.catalog.repo.Label(), c.repo.Label(); a != b {
		return fmt.Errorf("the store labels are %q and %q: %w", a, b, ErrUnsupported)
	}
	var there, here unix.Statfs_t
	if err := unix.Statfs(from.catalog.home, &there); err != nil {
		return &os.PathError{Op: "statfs", Path: from.catalog.home, Err: err}
	}
	if err := unix.Statfs(c.home, &here); err != nil {
		return &os.PathError{Op: "statfs", Path: c.home, Err: err}
	}
	if there.Type != here.Type { // each keeps access control lists in a form of its own, which is in the commit
		return fmt.Errorf("the filesystems are of two kinds: %w", ErrUnsupported)
	}
	return nil
}

// Clone makes a layer of another catalog a layer of c, with the same id, ancestors and commit. Its parent must be there. Objects,
// metadata and the inodes that its tree shares with its repository are linked where both are on one mount, else reflinked or copied;
// inodes of their own are reflinked or copied. Nothing is durable before the repository's Sync. What was under the id before is removed. The
// error matches ErrUnsupported if the layer can only come as a tar.
func Clone(ctx context.Context, c *Catalog, from *Layer, o CloneOptions) error {
	if err := c.clone(ctx, from, o); err != nil {
		return fmt.Errorf("clone layer %s: %w", from.ID, matchUnsupported(err))
	}
	return nil
}

func (c *Catalog) clone(ctx context.Context, from *Layer, o CloneOptions) (err error) {
	if err := CanClone(c, from); err != nil {
		return err
	}
	root, err := from.rootMeta()
	if err != nil {
		return err
	}
	create := CreateOptions{ReadWrite: from.ReadWrite, RootUID: root.UID, RootGID: root.GID, RootMode: &root.Mode}
	l, err := c.create(from.ID, from.Parent, create)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.clear(from.ID))
		}
	}()
	chain, err := Catalogs{c}.Chain(from.ID)
	if err != nil {
		return err
	}
	lists, err := openInodeLists(chain)
	if err != nil {
		return err
	}
	defer closeInodeLists(lists)
	stage, err := c.repo.NewStage(store.StageOptions{
		SharedTimes: c.o.SharedTimes, NoSync: true, Ancestors: lists, Sources: []*store.Repo{from.catalog.repo},
	})
	if err != nil {
		return fmt.Errorf("make a stage: %w", err)
	}
	k := &cloner{ctx: ctx, c: c, from: from, o: o, stage: stage, adopt: store.Adopt(stage, from.catalog.repo), shared: map[object.Checksum]bool{}}
	if err := k.run(); err != nil {
		return errors.Join(err, stage.Close())
	}
	l.Commit, l.Size, l.Entries = from.Commit, from.Size, from.Entries
	if err := c.place(l, stage); err != nil {
		return errors.Join(err, stage.Close())
	}
	if err := c.cloneSegments(ctx, stage, chain[1:]); err != nil {
		return errors.Join(err, stage.Close())
	}
	return stage.Close()
}

// cloneSegments makes the segments below a new layer. Those of the other catalog have its inodes.
func (c *Catalog) cloneSegments(ctx context.Context, stage *store.Stage, chain []*Layer) error {
	drafts, _ := c.draftSegments(ctx, stage, chain, false) // what cannot be made is left out, as by Stage
	if len(drafts) == 0 {
		return nil
	}
	if err := c.repo.Sync(); err != nil {
		return err
	}
	return placeSegments(drafts)
}

// A cloner makes one layer.
type cloner struct {
	ctx   context.Context //nolint:containedctx // lives for one clone
	c     *Catalog
	from  *Layer
	o     CloneOptions
	stage *store.Stage
	adopt *store.Adoption

	list   *store.Inodes // of the layer that is cloned
	source int           // its tree/
	at     string        // the directory in it that is open
	atFD   int
	shared map[object.Checksum]bool // file objects that a file of the tree shares
	files  []clonedFile
	made   int64
}

// A clonedFile is a name in the tree that is a file object; placed.Mode is 0 if the inode is its own.
type clonedFile struct {
	path   string
	placed store.Placed
}

func (k *cloner) run() (err error) {
	if k.list, err = store.OpenInodes(k.from.inodesPath(), k.from.TreeDir()); err != nil {
		return err
	}
	defer k.list.Close()
	if k.source, err = openDirAt(unix.AT_FDCWD, k.from.TreeDir()); err != nil {
		return &os.PathError{Op: "open", Path: k.from.TreeDir(), Err: err}
	}
	k.atFD = -1
	defer func() { unix.Close(k.source); k.leave() }()
	dir := int(k.stage.Dir().Fd())
	if err := unix.Mkdirat(dir, treeDirName, 0o700); err != nil {
		return fmt.Errorf("make the tree: %w", err)
	}
	if err := k.tree(dir); err != nil {
		return err
	}
	root, err := openDirAt(dir, treeDirName)
	if err != nil {
		return fmt.Errorf("open the tree: %w", err)
	}
	defer unix.Close(root)
	if !k.o.Unread {
		if err := k.verify(root); err != nil {
			return err
		}
	}
	hold := func(sum object.Checksum) error {
		if k.shared[sum] {
			return nil
		}
		return k.adopt.Hold(sum)
	}
	if err := k.adopt.Tree(k.from.Commit, hold); err != nil {
		return err
	}
	return k.publish(root)
}

// tree makes the tree in the stage.
func (k *cloner) tree(dir int) error {
	fd, err := openDirAt(dir, treeDirName)
	if err != nil {
		return fmt.Errorf("open the tree: %w", err)
	}
	w := &checkout{
		repo: k.from.catalog.repo, root: fd, prefix: overlayPrefix(k.c.o.UserXattr), firsts: map[int]string{}, place: k.place,
	}
	var st unix.Stat_t
	if err := unix.Fstat(k.source, &st); err != nil {
		return &os.PathError{Op: "stat", Path: k.from.TreeDir(), Err: err}
	}
	w.o.Root = &RootMeta{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}
	err = walkCommit(k.ctx, w.repo, k.from.Commit, walkFuncs{entry: func(e *Entry) error {
		if k.made++; k.o.Tell != nil && k.made%256 == 0 {
			k.o.Tell(k.made)
		}
		return w.entry(e)
	}, leave: w.leave})
	w.close()
	return err
}

// place links an entry that its tree shares with its repository. It reports false for one that is to be an inode of its own.
func (k *cloner) place(dir int, name string, e *Entry) (bool, error) {
	if !e.object {
		return false, nil
	}
	var st unix.Stat_t
	from, err := k.open(path.Dir(e.Path))
	if err == nil {
		err = unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	file := clonedFile{path: e.Path, placed: store.Placed{Checksum: e.Checksum}}
	if err != nil && err != unix.ENOENT {
		return false, err
	}
	if err == nil && k.list.Contains(st.Ino) {
		if file.placed, err = k.share(from, dir, name, &st, e); err != nil {
			return false, err
		}
		k.shared[e.Checksum] = true
	}
	k.files = append(k.files, file)
	return file.placed.Mode != 0, nil
}

// share puts a file into the tree, as a link to the other tree's inode if that may be.
func (k *cloner) share(from, dir int, name string, st *unix.Stat_t, e *Entry) (store.Placed, error) {
	if st.Size != e.Size || st.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT {
		return store.Placed{}, k.damaged(e.Checksum, "%s in tree/ is of type %o with %d bytes, and should be %o with %d", e.Path,
			st.Mode&unix.S_IFMT, st.Size, e.Mode&unix.S_IFMT, e.Size)
	}
	time := store.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
	if k.c.o.SharedTimes || sameStoredTime(time, e.MTime) {
		placed, ok, err := k.adopt.Link(from, dir, name, e.Checksum)
		if ok || err != nil {
			return placed, err
		}
	}
	h, f, err := k.from.catalog.repo.OpenFile(e.Checksum)
	if err != nil {
		return store.Placed{}, err
	}
	if f != nil {
		f.Close()
	}
	header := *h
	header.Xattrs = slices.DeleteFunc(slices.Clone(h.Xattrs), func(x object.Xattr) bool { return x.Name == labelXattr })
	return k.stage.PutObject(dir, name, store.File{Header: header, MTime: e.MTime}, e.Checksum)
}

func (k *cloner) damaged(sum object.Checksum, reason string, args ...any) error {
	return &store.CorruptError{Name: object.Name{Checksum: sum, Type: object.TypeFile}, Reason: fmt.Sprintf(reason, args...)}
}

// open opens a directory of the other tree, which stays open until the next.
func (k *cloner) open(dir string) (int, error) {
	if k.atFD >= 0 && k.at == dir {
		return k.atFD, nil
	}
	k.leave()
	fd, err := openTarDir(k.source, "/"+dir)
	if err != nil {
		return -1, err
	}
	k.at, k.atFD = dir, fd
	return fd, nil
}

func (k *cloner) leave() {
	if k.atFD >= 0 {
		unix.Close(k.atFD)
	}
	k.atFD = -1
}

// verifyBatch is how many files a worker reads before it asks for more.
const verifyBatch = 128

// verify reads the files of the new tree and compares them with their objects' checksums.
func (k *cloner) verify(root int) error {
	g, ctx := errgroup.WithContext(k.ctx)
	g.SetLimit(hands())
	unescape := (&treeCheck{l: &Layer{catalog: k.c}}).unescape
	for batch := range slices.Chunk(k.files, verifyBatch) {
		g.Go(func() error {
			return eachIn(root, batch, func(dir int, name string, f *clonedFile) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				reason, err := k.c.repo.Inspect(dir, name, f.placed.Checksum, unescape)
				if err == nil && reason != "" {
					err = k.damaged(f.placed.Checksum, "%s in tree/: %s", f.path, reason)
				}
				return err
			})
		})
	}
	return g.Wait()
}

// eachIn calls visit for files with their directories below root.
func eachIn(root int, files []clonedFile, visit func(dir int, name string, f *clonedFile) error) error {
	at, fd := "", -1
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	for i := range files {
		dir, name := path.Split(files[i].path)
		if fd < 0 || dir != at {
			if fd >= 0 {
				unix.Close(fd)
			}
			var err error
			if fd, err = openTarDir(root, "/"+dir); err != nil {
				return fmt.Errorf("open %q: %w", dir, err)
			}
			at = dir
		}
		if err := visit(fd, name, &files[i]); err != nil {
			return err
		}
	}
	return nil
}

// publish makes the commit part of the repository.
func (k *cloner) publish(root int) error {
	return k.stage.Publish(k.ctx, stagedRef(k.stage.Name()), k.from.Commit, func(link func(int, string, store.Placed) error) error {
		return eachIn(root, k.files, func(dir int, name string, f *clonedFile) error {
			if f.placed.Mode == 0 {
				return nil
			}
			return link(dir, name, f.placed)
		})
	})
}
