package driver

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/layers"
)

const flatName = "flat"

// fit returns the lower directories of a chain, at most room of them. Overlayfs takes no more than overlay.MaxLowers: what is beyond
// that is one flat checkout of the merged layers, which is made once, out of hardlinks, and goes with its uppermost layer.
func (d *Driver) fit(chain []*layers.Layer, room int) ([]string, error) {
	var dirs []string
	starts := make([]int, len(chain)) // how many directories the layers above each one have
	all, err := layers.EachOf(chain, ownDirs)
	if err != nil {
		return nil, err
	}
	for i, own := range all {
		starts[i] = len(dirs)
		dirs = append(dirs, own...)
	}
	if len(dirs) <= room {
		return dirs, nil
	}
	top, err := d.flattenable(chain, starts, room)
	if err != nil {
		return nil, fmt.Errorf("%d lower directories, and overlayfs takes %d: %w", len(dirs), overlay.MaxLowers, err)
	}
	flat, err := makeFlat(chain[top:])
	if err != nil {
		return nil, fmt.Errorf("flatten layer %s and those below it: %w", chain[top].ID, err)
	}
	return append(dirs[:starts[top]], flat), nil
}

// flattenable returns where the part of a chain begins that can be one directory: all of it must be commits, or the
// checkout would not follow what is written to it, and it must be ours. The uppermost such layer serves the most containers.
func (d *Driver) flattenable(chain []*layers.Layer, starts []int, room int) (int, error) {
	top := len(chain)
	for ; top > 0; top-- {
		l := chain[top-1]
		loose, err := l.Loose()
		if err != nil {
			return 0, err
		}
		if loose || isMapped(l) {
			break
		}
	}
	for top < len(chain) && !d.stores.owns(chain[top].Catalog()) {
		top++
	}
	if top == len(chain) || starts[top] >= room {
		return 0, fmt.Errorf("too many of the layers were written through a mount, or are of a read-only store: %w", layers.ErrUnsupported)
	}
	return top, nil
}

// makeFlat returns the flat checkout of a chain, which it makes if it is not there.
func makeFlat(chain []*layers.Layer) (string, error) {
	flat := filepath.Join(chain[0].Dir(), flatName)
	if isDir(flat) {
		return flat, nil
	}
	draft := flat + ".draft"
	if err := os.RemoveAll(draft); err != nil { // a crash left it
		return "", err
	}
	if err := layers.Flatten(background(), chain, draft); err != nil {
		return "", err
	}
	// Whoever finds it under its name takes it as it is.
	if err := chain[0].Catalog().Repo().Sync(); err != nil {
		return "", err
	}
	return flat, os.Rename(draft, flat)
}
