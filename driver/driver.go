package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/layers"
)

// A Driver keeps the layers of one graphroot. Its methods may be called from several goroutines; which of them the host
// program may overlap for one layer is as containers/storage has it.
type Driver struct {
	home       string // `<graphroot>/ostree`
	runHome    string // `<runroot>/ostree`
	root       string // the graphroot
	imageStore string // where image layers go, or ""
	settings   Settings
	dialect    func() (layers.TarDialect, error) // found out when first needed
	features   overlay.Features
	stores     *stores // while users is not 0; see enter
	mounts     *mountTable
	dirSync    bool // every change of an image's record in containers/storage is durable by itself
	unwritten  *unwritten
	recordable atomic.Bool // the last change needs no sync before containers/storage records it; see SyncMode

	mu       sync.Mutex
	users    int                // calls that are using stores, and what they left open
	replaced bool               // by another driver: stores are closed whenever users is 0
	staged   map[string]*Staged // by path
}

// New opens the driver's home, `<graphroot>/ostree`, and makes it if it does not exist. It is cheap, and may be called again in a
// live process. Errors match ErrPrerequisites or ErrFilesystem where the host or the filesystem cannot carry the driver.
func New(home string, o Options) (*Driver, error) {
	settings, err := LoadSettings(o)
	if err != nil {
		return nil, err
	}
	if settings.Size != 0 || settings.Inodes != 0 {
		return nil, fmt.Errorf("options size and inodes: %w", errNoQuota)
	}
	d := &Driver{
		home:       filepath.Clean(home),
		runHome:    filepath.Join(o.RunRoot, filepath.Base(home)),
		root:       o.Root,
		imageStore: o.ImageStore,
		settings:   settings,
		staged:     make(map[string]*Staged),
	}
	if o.Root == "" {
		d.root = filepath.Dir(d.home)
	}
	if o.RunRoot == "" {
		d.runHome = filepath.Join(d.root, "run", Name)
	}
	d.dialect = sync.OnceValues(func() (layers.TarDialect, error) {
		if o.WriteTar == nil {
			return layers.TarDialect{}, nil
		}
		return layers.DetectTarDialect(d.home, o.WriteTar)
	})
	if err := d.prepare(); err != nil {
		return nil, err
	}
	if settings.Sync != SyncNone {
		d.dirSync = syncDirectories(d.root)
		if o.ImageStore != "" {
			d.dirSync = syncDirectories(o.ImageStore) && d.dirSync
		}
	}
	g := graphrootOf(d)
	d.mounts, d.unwritten = g.mounts, &g.unwritten
	g.handTo(d)
	d.removeStaleViews()
	return d, nil
}

// prepare makes the home, finds out whether it can carry layers, and opens the stores. A home that it made and that cannot is removed
// again: a directory of that name makes containers/storage choose this driver the next time.
func (d *Driver) prepare() error {
	for _, home := range []string{d.home, imageStoreHome(d.imageStore)} {
		if home == "" {
			continue
		}
		remove, err := makeHome(home)
		if err != nil {
			return err
		}
		if err := d.checkHome(home); err != nil {
			remove()
			return err
		}
	}
	leave, err := d.enter()
	if err != nil {
		return err
	}
	leave()
	return nil
}

// makeHome makes a driver home, and returns what takes it away again as long as nothing is in it.
func makeHome(home string) (remove func(), err error) {
	if err := os.MkdirAll(filepath.Dir(home), 0o700); err != nil {
		return nil, err
	}
	err = os.Mkdir(home, 0o700)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(home) }, nil
}

// checkHome tells whether a filesystem can hold layers: hardlinks, and upper directories of the kernel's overlayfs.
func (d *Driver) checkHome(home string) error {
	features, err := probe(home, d.runHome)
	if err != nil {
		return err
	}
	if home == d.home {
		d.features = features
	}
	return nil
}

// String returns Name.
func (d *Driver) String() string { return Name }

// SyncMode says whether containers/storage must write the filesystem before it records the last change (it asks under the lock under
// which it made the change). That is the option of that name, except after two calls: a layer that CommitStaged made is on the disk
// with its tar-split, which was there before, and a container's need not be (docs/design.md).
func (d *Driver) SyncMode() SyncMode {
	if d.recordable.Load() {
		return SyncNone
	}
	return d.settings.Sync
}

// userXattr reports whether overlay has to keep its marks in user.* attributes, as in a user namespace.
func (d *Driver) userXattr() bool { return !d.features.TrustedXattr }

// Cleanup unmounts what this process mounted and nothing uses any more, and writes everything to the disk: what containers/storage
// saved after its last call into the driver as well. Mounts of other processes stay.
func (d *Driver) Cleanup() error {
	var errs []error
	for target := range d.mounts.list() {
		// Without MNT_DETACH: what is busy is somebody's.
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	if d.settings.Sync != SyncNone && d.unwritten.take(d.markRecords()) {
		err := syncFilesystem(d.home)
		if d.imageStore != "" {
			err = errors.Join(err, syncFilesystem(d.imageStore))
		}
		if err != nil {
			d.unwritten.change()
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, d.closeIdle())...)
}

// background is the context of every call: containers/storage has none to give.
func background() context.Context { return context.Background() }
