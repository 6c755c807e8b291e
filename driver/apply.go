package driver

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ostree-storage/ostree-storage/layers"
)

// A Staged is the content of a layer before there is the layer.
type Staged struct {
	Path string // where it is, and by what CommitStaged knows it
	Size int64  // sum of the sizes of its files

	d      *Driver
	staged *layers.Staged
	leave  func() // the stage is a part of its store, which stays open
}

// Close removes what was not committed. It may be called again, and after CommitStaged.
func (s *Staged) Close() error {
	s.d.mu.Lock()
	if s.d.staged[s.Path] == s {
		delete(s.d.staged, s.Path)
	}
	s.d.mu.Unlock()
	defer s.leave()
	return s.staged.Close()
}

// ApplyDiff fills a new layer from a tar, and returns the sum of its file sizes. When it returns the layer is durable; after an error the
// layer is empty as before.
func (d *Driver) ApplyDiff(id string, o ApplyOptions) (size int64, err error) {
	defer func() { exhaust(o.Diff, err) }()
	leave, err := d.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	d.recordable.Store(false) // for the tar-split, which containers/storage closes when we are done
	l, err := d.findOwn(id)
	if err != nil {
		return 0, fmt.Errorf("apply: %w", err)
	}
	if err := d.checkEmpty(l); err != nil {
		return 0, fmt.Errorf("apply to layer %q: %w", id, err)
	}
	staged, err := d.stage(l.catalog, id, l.Parent, o)
	if err != nil {
		return 0, fmt.Errorf("apply to layer %q: %w", id, err)
	}
	if err := l.catalog.Commit(id, staged.staged); err != nil {
		return 0, errors.Join(err, staged.Close())
	}
	return staged.Size, staged.Close()
}

// StageDiff does the work of ApplyDiff before the layer exists, without a lock and with others at work. Then CommitStaged
// makes it a layer, and Close removes what was not committed.
func (d *Driver) StageDiff(parent string, o ApplyOptions) (s *Staged, err error) {
	defer func() { exhaust(o.Diff, err) }()
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return d.stage(d.stores.images, "", parent, o)
}

// CommitStaged makes what StageDiff put at path the content of a new layer.
func (d *Driver) CommitStaged(id, path string) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	d.mu.Lock()
	s := d.staged[path]
	d.mu.Unlock()
	if s == nil {
		return fmt.Errorf("commit layer %q: nothing is staged at %q", id, path)
	}
	l, err := d.findOwn(id)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := d.checkEmpty(l); err != nil {
		return fmt.Errorf("commit layer %q: %w", id, err)
	}
	if err := l.catalog.Commit(id, s.staged); err != nil {
		return err
	}
	d.recordable.Store(l.catalog == d.stores.main) // in an image store it may be another filesystem that was synced than that of the tar-split
	return nil
}

// stage reads a tar into c. id is for errors alone, and not always known.
func (d *Driver) stage(c *layers.Catalog, id, parent string, o ApplyOptions) (*Staged, error) {
	if o.ForceMask != nil {
		return nil, fmt.Errorf("force_mask: %w: it needs a mount program that shows the real modes", ErrNotSupported)
	}
	var chain []*layers.Layer
	if parent != "" {
		var err error
		if chain, err = d.chain(parent); err != nil {
			return nil, fmt.Errorf("parent: %w", err)
		}
	}
	d.unwritten.change()
	s, err := c.Stage(background(), o.Diff, layers.StageOptions{
		ID:                id,
		Chain:             chain,
		UIDMaps:           o.Mappings.UIDs,
		GIDMaps:           o.Mappings.GIDs,
		IgnoreChownErrors: o.IgnoreChownErrors || d.settings.IgnoreChownErrors,
	})
	if err != nil {
		return nil, err
	}
	leave, err := d.enter()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	staged := &Staged{Path: s.Path(), Size: s.Size(), d: d, staged: s, leave: leave}
	d.mu.Lock()
	d.staged[staged.Path] = staged
	d.mu.Unlock()
	return staged, nil
}

// exhaust reads a tar that was refused to its end. Containers/storage reads along in a goroutine of its own, and takes the
// decompressor's buffer away as soon as we return: podman 4.3.1 panicked.
func exhaust(tar io.Reader, err error) {
	if err != nil && tar != nil {
		_, _ = io.Copy(io.Discard, tar) // what is wrong was said already
	}
}

// checkEmpty refuses a layer that has content or is mounted: a tar is never laid over what somebody sees.
func (d *Driver) checkEmpty(l found) error {
	if l.Applied() {
		return layers.ErrExists
	}
	if mounted, err := d.mounts.mounted(d.target(l)); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("it is mounted: %w", layers.ErrInUse))
	}
	entries, err := os.ReadDir(l.DiffDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("files were written to it through a mount: %w", layers.ErrExists)
	}
	return nil
}
