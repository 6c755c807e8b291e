package driver

import (
	"errors"
	"fmt"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/layers"
)

// below returns the directories of what lies below a layer, nearest first, at most room of them, and whether owners in it were changed
// by UpdateLayerIDMap. A long chain has one directory for each of its segments. Overlayfs takes no more than overlay.MaxLowers: a chain
// that needs more, because it lacks its segments, gets them now.
func (d *Driver) below(l *layers.Layer, room int) (dirs []string, mapped bool, err error) {
	dirs, mapped, err = d.partDirs(l)
	if err != nil || len(dirs) <= room {
		return dirs, mapped, err
	}
	had := len(dirs)
	if err := d.makeSegments(l); err != nil {
		return nil, false, fmt.Errorf("%d lower directories, and overlayfs takes %d: %w", had, overlay.MaxLowers, err)
	}
	if dirs, mapped, err = d.partDirs(l); err == nil && len(dirs) > room {
		err = fmt.Errorf("%d lower directories, and overlayfs takes %d: too many of the layers were written through a mount, "+
			"or are of a read-only store: %w", len(dirs), overlay.MaxLowers, layers.ErrUnsupported)
	}
	return dirs, mapped, err
}

// partDirs returns the directories of what lies below a layer, as it is.
func (d *Driver) partDirs(l *layers.Layer) (dirs []string, mapped bool, err error) {
	parts, err := d.stores.all.Parts(l)
	if errors.Is(err, layers.ErrUnknown) {
		return nil, false, fmt.Errorf("%w: %w", err, ErrUnknownLayer)
	}
	if err != nil {
		return nil, false, err
	}
	all, err := layers.EachOf(parts, func(p layers.Part) ([]string, error) {
		if p.Layer == nil {
			return p.Dirs, nil
		}
		return ownDirs(p.Layer)
	})
	if err != nil {
		return nil, false, err
	}
	for i, own := range all {
		dirs = append(dirs, own...)
		last := own[len(own)-1]
		mapped = mapped || parts[i].Layer != nil && last == parts[i].Layer.MappedDir()
	}
	return dirs, mapped, nil
}

// makeSegments makes the segments below a layer.
func (d *Driver) makeSegments(l *layers.Layer) error {
	chain, err := d.chain(l.ID)
	if err != nil {
		return err
	}
	c := chain[len(chain)-1].Catalog() // a segment begins at the base layer, or on another
	if !d.stores.owns(c) {
		return fmt.Errorf("the base layer is of a read-only store: %w", layers.ErrUnsupported)
	}
	return layers.MakeSegments(background(), c, chain[1:])
}
