package legacy

import (
	"io"

	graphdriver "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/archive"
	"github.com/containers/storage/pkg/directory"
	"github.com/containers/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/driver"
)

// An adapter has the methods of graphdriver.Driver that are the same in every version of containers/storage.
type adapter struct {
	d *driver.Driver
}

func idMaps(m []idtools.IDMap) []driver.IDMap {
	if len(m) == 0 {
		return nil
	}
	out := make([]driver.IDMap, len(m))
	for i := range m {
		out[i] = driver.IDMap(m[i])
	}
	return out
}

func mappings(m *idtools.IDMappings) driver.Mappings {
	if m == nil {
		return driver.Mappings{}
	}
	return driver.Mappings{UIDs: idMaps(m.UIDs()), GIDs: idMaps(m.GIDs())}
}

// writeTar writes an upper directory as the overlay driver of this version does.
func writeTar(upper string, maps []driver.IDMap) (io.ReadCloser, error) {
	ids := make([]idtools.IDMap, len(maps))
	for i := range maps {
		ids[i] = idtools.IDMap(maps[i])
	}
	return archive.TarWithOptions(upper, &archive.TarOptions{
		Compression:    archive.Uncompressed,
		UIDMaps:        ids,
		GIDMaps:        ids,
		WhiteoutFormat: archive.OverlayWhiteoutFormat,
		WhiteoutData:   []string{},
	})
}

func createOptions(o *graphdriver.CreateOpts) *driver.CreateOptions {
	if o == nil {
		return nil
	}
	return &driver.CreateOptions{MountLabel: o.MountLabel, StorageOpt: o.StorageOpt, Mappings: mappings(o.IDMappings)}
}

func applyOptions(o graphdriver.ApplyDiffOpts) driver.ApplyOptions {
	return driver.ApplyOptions{
		Diff:              o.Diff,
		Mappings:          mappings(o.Mappings),
		MountLabel:        o.MountLabel,
		IgnoreChownErrors: o.IgnoreChownErrors,
		ForceMask:         o.ForceMask,
	}
}

func (a adapter) String() string { return a.d.String() }

func (a adapter) CreateReadWrite(id, parent string, o *graphdriver.CreateOpts) error {
	return upstream(a.d.CreateReadWrite(id, parent, createOptions(o)))
}

func (a adapter) Create(id, parent string, o *graphdriver.CreateOpts) error {
	return upstream(a.d.Create(id, parent, createOptions(o)))
}

func (a adapter) CreateFromTemplate(id, template string, _ *idtools.IDMappings, parent string, _ *idtools.IDMappings, o *graphdriver.CreateOpts, readWrite bool) error {
	return upstream(a.d.CreateFromTemplate(id, template, parent, createOptions(o), readWrite))
}

func (a adapter) Remove(id string) error { return upstream(a.d.Remove(id)) }

func (a adapter) Get(id string, o graphdriver.MountOpts) (string, error) {
	dir, err := a.d.Get(id, driver.MountOptions{
		Label:    o.MountLabel,
		Mappings: driver.Mappings{UIDs: idMaps(o.UidMaps), GIDs: idMaps(o.GidMaps)},
		Unmapped: unmapped(o),
		Options:  o.Options,
		Volatile: o.Volatile,
	})
	return dir, upstream(err)
}

func (a adapter) Put(id string) error { return upstream(a.d.Put(id)) }

func (a adapter) Exists(id string) bool { return a.d.Exists(id) }

func (a adapter) ListLayers() ([]string, error) {
	ids, err := a.d.ListLayers()
	return ids, upstream(err)
}

func (a adapter) Status() [][2]string { return a.d.Status() }

func (a adapter) Metadata(id string) (map[string]string, error) {
	m, err := a.d.Metadata(id)
	return m, upstream(err)
}

func (a adapter) ReadWriteDiskUsage(id string) (*directory.DiskUsage, error) {
	u, err := a.d.ReadWriteDiskUsage(id)
	if err != nil {
		return nil, upstream(err)
	}
	return &directory.DiskUsage{Size: u.Size, InodeCount: u.Inodes}, nil
}

func (a adapter) Cleanup() error { return upstream(a.d.Cleanup()) }

func (a adapter) AdditionalImageStores() []string { return a.d.AdditionalImageStores() }

func (a adapter) Diff(id string, m *idtools.IDMappings, parent string, pm *idtools.IDMappings, label string) (io.ReadCloser, error) {
	rc, err := a.d.Diff(id, mappings(m), parent, mappings(pm), label)
	if err != nil {
		return nil, upstream(err)
	}
	return rc, nil
}

func (a adapter) Changes(id string, m *idtools.IDMappings, parent string, pm *idtools.IDMappings, label string) ([]archive.Change, error) {
	cs, err := a.d.Changes(id, mappings(m), parent, mappings(pm), label)
	if err != nil {
		return nil, upstream(err)
	}
	out := make([]archive.Change, len(cs))
	for i, c := range cs {
		out[i] = archive.Change{Path: c.Path, Kind: archive.ChangeType(c.Kind)}
	}
	return out, nil
}

func (a adapter) DiffSize(id string, m *idtools.IDMappings, parent string, pm *idtools.IDMappings, label string) (int64, error) {
	n, err := a.d.DiffSize(id, mappings(m), parent, mappings(pm), label)
	return n, upstream(err)
}

// DiffGetter opens a layer's files by the names in its tar. Without it, an image of an additional store could not be saved.
func (a adapter) DiffGetter(id string) (graphdriver.FileGetCloser, error) {
	g, err := a.d.DiffGetter(id)
	if err != nil {
		return nil, upstream(err)
	}
	return g, nil
}

func (a adapter) UpdateLayerIDMap(id string, toContainer, toHost *idtools.IDMappings, label string) error {
	return upstream(a.d.UpdateLayerIDMap(id, mappings(toContainer), mappings(toHost), label))
}
