package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// StageOptions says how a tar is read.
type StageOptions struct {
	// ID is named in errors. It is not in the commit.
	ID string
	// Chain is the parent and its ancestors, nearest first. No inode of theirs is used for another path of the new layer.
	Chain []*Layer
	// UIDMaps and GIDMaps turn the owners in the tar into those on disk. With both empty, owners are taken as they are.
	UIDMaps, GIDMaps []IDMap
	// IgnoreChownErrors gives entries whose owner cannot be set to the process's user, as the option of containers/storage does.
	IgnoreChownErrors bool
	// ForceMask, if not nil, is the mode that every file and directory gets, as the option of containers/storage does.
	ForceMask *uint32

	rootMeta *RootMeta // of a root that the tar does not list
}

// A Staged is a layer's content before the layer: durable, and gone with the process unless it is committed.
type Staged struct {
	catalog   *Catalog
	stage     *store.Stage
	commit    object.Checksum
	entries   int64
	size      int64
	ancestors []string
	finisher  *finisher
	segments  []segmentDraft // of ancestors that have none yet
}

// Size is the sum of the sizes of all files and symlinks, hardlinks once: what the overlay driver reports for the layer.
func (s *Staged) Size() int64 { return s.size }

// Path is the staging directory. It names s within this process.
func (s *Staged) Path() string { return s.stage.Path() }

// Checksum names the commit.
func (s *Staged) Checksum() object.Checksum { return s.commit }

// Close removes what was not committed, its objects too. It does nothing after a Commit.
func (s *Staged) Close() error {
	if s.stage == nil {
		return nil
	}
	err := s.closeStage()
	if err == nil {
		_, err = s.catalog.repo.Release(context.Background(), s.commit)
	}
	return err
}

func (s *Staged) closeStage() error {
	err := s.stage.Close()
	s.stage = nil
	return err
}

// Stage reads a layer tar to its end, padding included, and stores its content as a commit that only a staged ref reaches.
// It takes no lock of the catalog and may run any number of times at once. On error nothing is left. The caller must Close the result.
// An error about the tar is an *EntryError.
func (c *Catalog) Stage(ctx context.Context, tar io.Reader, o StageOptions) (*Staged, error) {
	if len(o.Chain) > 0 {
		root, err := o.Chain[0].rootMeta()
		if err != nil {
			return nil, err
		}
		o.rootMeta = &root
	}
	lists, err := openInodeLists(o.Chain)
	if err != nil {
		return nil, err
	}
	defer closeInodeLists(lists)
	stage, err := c.repo.NewStage(store.StageOptions{
		SharedTimes: c.o.SharedTimes, NoSync: c.o.NoSync, Ancestors: lists, Sources: c.o.sources(), Meet: c.o.Meet,
		SyncAll: c.o.segmented(len(o.Chain)), // for the segments below
	})
	if err != nil {
		return nil, fmt.Errorf("make a stage: %w", err)
	}
	// Before the layer is published: the sync there makes them durable. They only spare mounts time, so that what cannot be made is left out.
	segments, _ := c.draftSegments(ctx, stage, o.Chain, false)
	s, err := c.fill(ctx, stage, tar, o)
	if err != nil {
		return nil, errors.Join(err, stage.Close())
	}
	s.catalog, s.stage, s.segments = c, stage, segments
	for _, l := range o.Chain {
		s.ancestors = append(s.ancestors, l.ID)
	}
	return s, nil
}

// fill reads the tar into the stage and publishes it.
func (c *Catalog) fill(ctx context.Context, stage *store.Stage, tar io.Reader, o StageOptions) (*Staged, error) {
	g, err := newIngest(ctx, stage, c, o)
	if err != nil {
		return nil, err
	}
	defer g.close()
	if err := g.read(ctx, tar); err != nil {
		return nil, err
	}
	s, err := g.finish(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.finisher.publish(ctx, stagedRef(stage.Name()), s.commit); err != nil {
		return nil, fmt.Errorf("publish the layer: %w", err)
	}
	s.finisher = nil
	return s, nil
}

// newIngest makes the tree's root in the stage and starts the workers.
func newIngest(ctx context.Context, stage *store.Stage, c *Catalog, o StageOptions) (*ingest, error) {
	g := &ingest{
		o: o, opts: &c.o, stage: stage, label: c.repo.Label(), prefix: overlayPrefix(c.o.UserXattr),
		groups: make(map[inodeID][]nodeID),
	}
	var err error
	if g.root.uid, err = hostID(0, o.UIDMaps); err != nil {
		return nil, err
	}
	if g.root.gid, err = hostID(0, o.GIDMaps); err != nil {
		return nil, err
	}
	if o.IgnoreChownErrors {
		if g.owners, err = readOwnable(); err != nil {
			return nil, err
		}
	}
	dir := int(stage.Dir().Fd())
	if err := unix.Mkdirat(dir, treeDirName, 0o700); err != nil {
		return nil, fmt.Errorf("make the tree: %w", err)
	}
	root, err := openDirAt(dir, treeDirName)
	if err != nil {
		return nil, fmt.Errorf("open the tree: %w", err)
	}
	g.tree = newLayerTree(g.implied(unix.S_IFDIR|defaultRootMode), &g.memory)
	g.find.tree, g.listed.from = g.tree, &g.memory
	g.dirs = newTreeDirs(g.tree, root)
	g.place = newPlacer(ctx, stage, g.dirs, g.fail)
	return g, nil
}

// close ends the workers, closes the directories and frees the tree.
func (g *ingest) close() {
	g.place.close()
	g.dirs.close()
	g.memory.free()
}

// openInodeLists opens the lists of inodes of a chain's applied layers.
func openInodeLists(chain []*Layer) ([]*store.Inodes, error) {
	var lists []*store.Inodes
	for _, l := range chain {
		if !l.Applied() {
			continue
		}
		list, err := store.OpenInodes(l.inodesPath(), l.TreeDir())
		if err != nil {
			closeInodeLists(lists)
			return nil, fmt.Errorf("open the inode list of layer %s: %w", l.ID, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

func closeInodeLists(lists []*store.Inodes) {
	for _, l := range lists {
		l.Close()
	}
}

// Commit makes s the content of an empty layer and returns when that is durable. The error matches ErrExists if the layer has
// content, and ErrUnknown if it does not exist or its ancestors are not those that s was staged for.
func (c *Catalog) Commit(id string, s *Staged) error {
	l, err := c.Layer(id)
	if err != nil {
		return err
	}
	if l.Applied() {
		return fmt.Errorf("layer %s: %w", id, ErrExists)
	}
	if s.stage == nil || s.catalog != c {
		return fmt.Errorf("commit layer %s: the stage is closed or of another catalog", id)
	}
	if !slices.Equal(l.Ancestors, s.ancestors) {
		return fmt.Errorf("commit layer %s: staged for other ancestors: %w", id, ErrUnknown)
	}
	l.Commit, l.Size, l.Entries = s.commit, s.size, s.entries
	if err := c.place(l, s.stage); err != nil {
		return fmt.Errorf("commit layer %s: %w", id, err)
	}
	if err := placeSegments(s.segments); err != nil {
		return fmt.Errorf("commit layer %s: %w", id, err)
	}
	sync := c.repo.SyncNames
	if c.o.NoSync {
		sync = c.repo.Sync // of what Publish left
	}
	// What is left of the stage goes first: one change of the disk instead of two.
	if err := errors.Join(s.closeStage(), sync()); err != nil {
		return fmt.Errorf("commit layer %s: %w", id, err)
	}
	return nil
}

// place moves a staged tree to its layer. The record comes last: until it says so, the layer has no content.
func (c *Catalog) place(l *Layer, stage *store.Stage) error {
	tree, err := os.Open(stage.Path() + "/" + treeDirName)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := stage.WriteInodes(l.inodesPath(), tree); err != nil {
		return fmt.Errorf("write the inode list: %w", err)
	}
	if err := os.Rename(tree.Name(), l.TreeDir()); err != nil {
		return err
	}
	if err := c.repo.MoveRef(stagedRef(stage.Name()), layerRef(l.ID)); err != nil {
		return fmt.Errorf("name the commit: %w", err)
	}
	return writeRecord(l.Dir(), l)
}
