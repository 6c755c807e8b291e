package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/layers"
)

// SupportsShifting reports whether a mount can show the owners on disk through these mappings, so that no file has to
// change its owner.
func (d *Driver) SupportsShifting(m Mappings) bool {
	if os.Getenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP") == "yes" || !d.features.IDMap {
		return false
	}
	idMap, err := idMapOf(m)
	return err == nil && (m.Empty() || idMap.Validate() == nil)
}

// idMapOf turns mappings into those of a mount.
func idMapOf(m Mappings) (*overlay.IDMap, error) {
	uids, err := ranges(m.UIDs)
	if err != nil {
		return nil, err
	}
	gids, err := ranges(m.GIDs)
	if err != nil {
		return nil, err
	}
	return &overlay.IDMap{UIDs: uids, GIDs: gids}, nil
}

func ranges(maps []IDMap) ([]overlay.Range, error) {
	out := make([]overlay.Range, len(maps))
	for i, m := range maps {
		const end = 1 << 32
		if m.ContainerID < 0 || m.HostID < 0 || m.Size <= 0 || m.ContainerID+m.Size > end || m.HostID+m.Size > end {
			return nil, fmt.Errorf("mapping %d:%d:%d: %w", m.ContainerID, m.HostID, m.Size, ErrOption)
		}
		out[i] = overlay.Range{Container: uint32(m.ContainerID), Host: uint32(m.HostID), Size: uint32(m.Size)}
	}
	return out, nil
}

// toHost returns the id on disk of an id in the container.
func toHost(id int, maps []IDMap) (int, error) {
	if len(maps) == 0 {
		return id, nil
	}
	for _, m := range maps {
		if id >= m.ContainerID && id < m.ContainerID+m.Size {
			return m.HostID + id - m.ContainerID, nil
		}
	}
	return 0, fmt.Errorf("%d is in no range: %w", id, ErrOption)
}

// UpdateLayerIDMap gives everything that a new layer shows the owners that it has under other mappings: from and to turn ids in a
// container into those on disk, before and after. It is for kernels and filesystems whose mounts cannot do that
// (SupportsShifting). No object changes: what gets another owner is copied up, by reflink where the filesystem has them,
// and becomes a lower directory of the layer, so that it is no change of the layer's own.
func (d *Driver) UpdateLayerIDMap(id string, from, to Mappings, _ string) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	d.recordable.Store(false)
	l, err := d.findOwn(id)
	if err != nil {
		return err
	}
	if err := d.checkEmpty(l); err != nil {
		return fmt.Errorf("change the owners of layer %q: %w", id, err)
	}
	if l.Mapped() {
		return fmt.Errorf("change the owners of layer %q: that was done before: %w", id, layers.ErrExists)
	}
	cost, err := d.copyMapped(l, from, to)
	if err == nil {
		err = cost.write(l.Layer)
	}
	if err != nil {
		return fmt.Errorf("change the owners of layer %q: %w", id, err)
	}
	if err := os.Rename(l.DiffDir(), l.MappedDir()); err != nil {
		return err
	}
	if err := os.Mkdir(l.DiffDir(), 0o700); err != nil {
		return err
	}
	if err := copyRoot(l.MappedDir(), l.DiffDir()); err != nil {
		return err
	}
	// The work directory may know the old upper directory by its handle.
	if err := os.RemoveAll(l.WorkDir()); err != nil {
		return err
	}
	if err := os.Mkdir(l.WorkDir(), 0o700); err != nil {
		return err
	}
	if d.settings.Sync == SyncNone {
		return nil
	}
	return l.catalog.Repo().Sync()
}

// copyMapped mounts a layer for writing, at a place of its own, and changes every owner in it. It returns what that took.
func (d *Driver) copyMapped(l found, from, to Mappings) (cost mappedCost, err error) {
	m, err := d.spec(l, Mappings{}, true, false)
	if err != nil {
		return cost, err
	}
	v, err := d.newView()
	if err != nil {
		return cost, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	m.Target = v.path
	if err := m.Do(); err != nil {
		return cost, err
	}
	f, err := l.catalog.Repo().Features()
	if err != nil {
		return cost, err
	}
	r := remapper{from: from, to: to, moved: map[uint64]string{}}
	err = filepath.WalkDir(v.path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return r.file(path)
	})
	r.cost.Reflink = f.Reflink
	return r.cost, err
}
