package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/ostree-storage/ostree-storage/layers"
)

// A comparison is of a layer with the one below it, from the one directory that holds what the layer changes.
type comparison struct {
	upper  string
	lowers []string
	chain  []*layers.Layer // the layer and those below it, nearest first
}

// committed reports whether the layer is a commit and nothing else.
func (c *comparison) committed() bool { return c.upper == c.chain[0].TreeDir() }

// compare returns how to compare id with parent, or false if that takes a walk of both: parent is not the layer below, or
// the layer's own content is in more than one directory.
func (d *Driver) compare(id, parent string) (comparison, bool, error) {
	chain, err := d.chain(id)
	if err != nil {
		return comparison{}, false, err
	}
	l := chain[0]
	if l.Parent != parent {
		return comparison{}, false, nil
	}
	below, err := lowerDirs(chain[1:])
	if err != nil {
		return comparison{}, false, err
	}
	own, err := ownDirs(l)
	if err != nil {
		return comparison{}, false, err
	}
	if l.Mapped() {
		// What UpdateLayerIDMap copied is what is below with other owners, and no change of the layer's own.
		last := len(own) - 1
		own, below = own[:last], append(own[last:], below...)
	}
	if len(own) == 1 {
		return comparison{upper: own[0], lowers: below, chain: chain}, true, nil
	}
	return comparison{}, false, nil
}

// Diff returns the layer tar of id over parent. The reader must be closed. containers/storage takes the tar of a layer that came from
// one from its own tar-split and DiffGetter; this is for layers that were written through a mount.
func (d *Driver) Diff(id string, m Mappings, parent string, pm Mappings, _ string) (io.ReadCloser, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	c, native, err := d.compare(id, parent)
	if err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	dialect, err := d.dialect()
	if err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	skipped := func(path string, err error) { debug("diff of layer %s: left out %s: %v", id, path, err) }
	if native {
		o := layers.DiffOptions{
			Upper: c.upper, Lowers: c.lowers, UIDMaps: m.UIDs, GIDMaps: m.GIDs, UserXattr: d.userXattr(),
			Dialect: dialect, Skipped: skipped,
		}
		return stream(func(ctx context.Context, w io.Writer) error { return layers.WriteDiff(ctx, w, o) }, nil), nil
	}
	o := layers.TreeOptions{UIDMaps: m.UIDs, GIDMaps: m.GIDs, Dialect: dialect, Skipped: skipped}
	v, err := d.view(id)
	if err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	return stream(func(ctx context.Context, w io.Writer) error {
		if parent == "" {
			return layers.WriteTree(ctx, w, v.path, o)
		}
		changes, err := d.changesBetween(ctx, v, id, m, parent, pm)
		if err != nil {
			return err
		}
		return layers.WriteNaiveDiff(ctx, w, v.path, changes, o)
	}, v.Close), nil
}

// changesBetween compares a mounted layer with one that is not the layer below it: from the commits, or else entry by entry.
func (d *Driver) changesBetween(ctx context.Context, v *view, id string, m Mappings, parent string, pm Mappings) ([]Change, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	newChain, oldChain, err := d.chains(id, parent)
	var changes []Change
	if err == nil {
		changes, err = layers.ChangesBetween(ctx, newChain, oldChain, d.naiveOptions(m, pm))
	}
	if errors.Is(err, layers.ErrUnsupported) {
		return d.naiveChanges(v, m, parent, pm)
	}
	return changes, err
}

// chains returns the chains of two layers, the second of which may be "". The error matches layers.ErrUnsupported if the
// commits do not say all.
func (d *Driver) chains(id, parent string) (newChain, oldChain []*layers.Layer, err error) {
	if newChain, err = d.chain(id); err != nil {
		return nil, nil, err
	}
	if parent != "" {
		if oldChain, err = d.chain(parent); err != nil {
			return nil, nil, err
		}
	}
	if slices.ContainsFunc(newChain, (*layers.Layer).Mapped) || slices.ContainsFunc(oldChain, (*layers.Layer).Mapped) {
		return nil, nil, fmt.Errorf("owners were changed in a copy: %w", layers.ErrUnsupported)
	}
	return newChain, oldChain, nil
}

func (d *Driver) naiveOptions(m, pm Mappings) layers.NaiveOptions {
	return layers.NaiveOptions{NewUIDs: m.UIDs, NewGIDs: m.GIDs, OldUIDs: pm.UIDs, OldGIDs: pm.GIDs, SharedTimes: d.settings.SharedTimes}
}

// naiveChanges compares a mounted layer with parent, entry by entry.
func (d *Driver) naiveChanges(v *view, m Mappings, parent string, pm Mappings) (changes []Change, err error) {
	old := ""
	if parent != "" {
		p, err := d.view(parent)
		if err != nil {
			return nil, err
		}
		defer func() {
			if closeErr := p.Close(); err == nil {
				err = closeErr
			}
		}()
		old = p.path
	}
	return layers.NaiveChanges(v.path, old, d.naiveOptions(m, pm))
}

// withNaiveChanges calls use with the changes of id over a parent that is not the layer below it.
func (d *Driver) withNaiveChanges(id string, m Mappings, parent string, pm Mappings, use func(dir string, changes []Change) error) (err error) {
	v, err := d.view(id)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := v.Close(); err == nil {
			err = closeErr
		}
	}()
	changes, err := d.naiveChanges(v, m, parent, pm)
	if err != nil {
		return err
	}
	return use(v.path, changes)
}

// Changes lists what differs between id and parent. With parent "", and a layer below id, everything is new.
func (d *Driver) Changes(id string, m Mappings, parent string, pm Mappings, _ string) ([]Change, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	out, err := d.changes(id, m, parent, pm)
	if err != nil {
		return nil, fmt.Errorf("changes: %w", err)
	}
	return out, nil
}

func (d *Driver) changes(id string, m Mappings, parent string, pm Mappings) ([]Change, error) {
	c, native, err := d.compare(id, parent)
	switch {
	case err != nil:
		return nil, err
	case native && c.committed():
		return layers.LayerChanges(background(), c.chain)
	case native:
		return layers.Changes(c.upper, c.lowers, layers.ChangesOptions{UserXattr: d.userXattr()})
	}
	newChain, oldChain, err := d.chains(id, parent)
	var out []Change
	if err == nil {
		out, err = layers.ChangesBetween(background(), newChain, oldChain, d.naiveOptions(m, pm))
	}
	if errors.Is(err, layers.ErrUnsupported) {
		err = d.withNaiveChanges(id, m, parent, pm, func(_ string, changes []Change) error {
			out = changes
			return nil
		})
	}
	return out, err
}

// DiffSize returns the bytes in the files that id adds to parent.
func (d *Driver) DiffSize(id string, m Mappings, parent string, pm Mappings, _ string) (int64, error) {
	leave, err := d.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	size, err := d.diffSize(id, m, parent, pm)
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	return size, nil
}

func (d *Driver) diffSize(id string, m Mappings, parent string, pm Mappings) (int64, error) {
	c, native, err := d.compare(id, parent)
	switch {
	case err != nil:
		return 0, err
	case native && c.committed():
		return c.chain[0].Size, nil
	case native:
		return layers.DiffSize(c.upper)
	}
	newChain, oldChain, err := d.chains(id, parent)
	var size int64
	if err == nil {
		size, err = layers.SizeBetween(background(), newChain, oldChain, d.naiveOptions(m, pm))
	}
	if errors.Is(err, layers.ErrUnsupported) {
		err = d.withNaiveChanges(id, m, parent, pm, func(dir string, changes []Change) (err error) {
			size, err = layers.ChangesSize(dir, changes)
			return err
		})
	}
	return size, err
}

// A streamed tar is written by a goroutine that ends with Close, at the latest.
type streamed struct {
	*io.PipeReader
	cancel  context.CancelFunc
	done    chan struct{}
	cleanup func() error
}

func stream(write func(ctx context.Context, w io.Writer) error, cleanup func() error) io.ReadCloser {
	ctx, cancel := context.WithCancel(background())
	r, w := io.Pipe()
	s := &streamed{PipeReader: r, cancel: cancel, done: make(chan struct{}), cleanup: cleanup}
	go func() {
		defer close(s.done)
		w.CloseWithError(write(ctx, w)) // with nil: the end
	}()
	return s
}

// Close ends the goroutine and undoes what it needed.
func (s *streamed) Close() error {
	s.cancel()
	err := s.PipeReader.Close()
	<-s.done
	if s.cleanup != nil {
		cleanup := s.cleanup
		s.cleanup = nil
		return errors.Join(err, cleanup())
	}
	return err
}

// A FileGetter opens the files of a layer by the names in its tar.
type FileGetter struct {
	chain []*layers.Layer
}

// DiffGetter returns the files of a layer. What a layer from a tar gives is what the tar held, whatever was written to it since.
func (d *Driver) DiffGetter(id string) (*FileGetter, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	chain, err := d.chain(id)
	if err != nil {
		return nil, err
	}
	return &FileGetter{chain: chain}, nil
}

// Get opens the file of that name. A layer made from a template has the tar of the template, and so the files of layers below.
func (g *FileGetter) Get(name string) (io.ReadCloser, error) {
	for _, l := range g.chain {
		f, err := l.Open(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Close ends the FileGetter.
func (g *FileGetter) Close() error { return nil }
