package driver

import "io"

// A Driver keeps the layers of one graphroot. Its methods may be called from several goroutines; which of them the host
// program may overlap for one layer is as containers/storage has it.
type Driver struct{}

// New opens the driver's home, `<graphroot>/ostree`, and makes it if it does not exist. It is cheap, and may be called again in a
// live process. Errors match ErrPrerequisites or ErrIncompatibleFS where the host or the filesystem cannot carry the driver.
func New(home string, o Options) (*Driver, error) { panic("not written yet") }

// String returns Name.
func (d *Driver) String() string { return Name }

// Create makes an empty image layer. A layer of that name is replaced.
func (d *Driver) Create(id, parent string, o *CreateOptions) error { panic("not written yet") }

// CreateReadWrite makes an empty layer for a container.
func (d *Driver) CreateReadWrite(id, parent string, o *CreateOptions) error { panic("not written yet") }

// CreateFromTemplate makes a layer that shows what template shows.
func (d *Driver) CreateFromTemplate(id, template, parent string, o *CreateOptions, readWrite bool) error {
	panic("not written yet")
}

// Remove removes a layer and waits until its bytes are free.
func (d *Driver) Remove(id string) error { panic("not written yet") }

// DeferredRemove removes a layer at once and returns the slow part.
func (d *Driver) DeferredRemove(id string) (func() error, error) { panic("not written yet") }

// Get mounts a layer and returns where.
func (d *Driver) Get(id string, o MountOptions) (string, error) { panic("not written yet") }

// Put undoes one Get.
func (d *Driver) Put(id string) error { panic("not written yet") }

// Exists reports whether there is such a layer, in any store.
func (d *Driver) Exists(id string) bool { panic("not written yet") }

// ListLayers returns the layers that this driver owns.
func (d *Driver) ListLayers() ([]string, error) { panic("not written yet") }

// Status describes the driver, for people.
func (d *Driver) Status() [][2]string { panic("not written yet") }

// Metadata returns the directories of a layer's mount.
func (d *Driver) Metadata(id string) (map[string]string, error) { panic("not written yet") }

// ReadWriteDiskUsage returns what a writable layer takes by itself.
func (d *Driver) ReadWriteDiskUsage(id string) (Usage, error) { panic("not written yet") }

// Cleanup unmounts what nothing uses and makes the store durable.
func (d *Driver) Cleanup() error { panic("not written yet") }

// AdditionalImageStores returns the readable read-only stores.
func (d *Driver) AdditionalImageStores() []string { panic("not written yet") }

// SyncMode returns the option.
func (d *Driver) SyncMode() SyncMode { panic("not written yet") }

// ApplyDiff fills an empty layer from a tar and returns the sum of its file sizes.
func (d *Driver) ApplyDiff(id string, o ApplyOptions) (int64, error) { panic("not written yet") }

// StageDiff does the work of ApplyDiff before the layer exists, and without a lock.
func (d *Driver) StageDiff(parent string, o ApplyOptions) (*Staged, error) { panic("not written yet") }

// CommitStaged makes what StageDiff staged the content of a layer.
func (d *Driver) CommitStaged(id, path string) error { panic("not written yet") }

// A Staged is a layer's content before the layer.
type Staged struct {
	Path string
	Size int64
}

// Close removes what was not committed.
func (s *Staged) Close() error { panic("not written yet") }

// Diff returns the layer tar of id over parent.
func (d *Driver) Diff(id string, m Mappings, parent string, pm Mappings, label string) (io.ReadCloser, error) {
	panic("not written yet")
}

// Changes lists what differs between id and parent.
func (d *Driver) Changes(id string, m Mappings, parent string, pm Mappings, label string) ([]Change, error) {
	panic("not written yet")
}

// DiffSize returns the bytes that id adds to parent.
func (d *Driver) DiffSize(id string, m Mappings, parent string, pm Mappings, label string) (int64, error) {
	panic("not written yet")
}

// A FileGetter opens the files of a layer by the names in its tar.
type FileGetter struct{}

// Get opens the file of that name.
func (g *FileGetter) Get(name string) (io.ReadCloser, error) { panic("not written yet") }

// Close ends the FileGetter.
func (g *FileGetter) Close() error { panic("not written yet") }

// DiffGetter returns the files of a layer.
func (d *Driver) DiffGetter(id string) (*FileGetter, error) { panic("not written yet") }

// UpdateLayerIDMap changes the owners in a new layer.
func (d *Driver) UpdateLayerIDMap(id string, toContainer, toHost Mappings, label string) error {
	panic("not written yet")
}

// SupportsShifting reports whether a mount can map owners.
func (d *Driver) SupportsShifting(m Mappings) bool { panic("not written yet") }
