package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ostree-storage/ostree-storage/layers"
)

// errNoQuota is for limits on what a layer may take.
var errNoQuota = fmt.Errorf("%w: limits need project quotas, which this driver does not set", ErrNotSupported)

// Create makes an empty layer for an image. A layer of that name, which can only be what a crash left, is replaced.
func (d *Driver) Create(id, parent string, o *CreateOptions) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	return d.create(d.stores.images, id, parent, o, false)
}

// CreateReadWrite makes an empty layer for a container. A layer of that name is replaced.
func (d *Driver) CreateReadWrite(id, parent string, o *CreateOptions) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	return d.create(d.stores.main, id, parent, o, true)
}

// CreateFromTemplate makes a layer that shows what template shows. Nothing is copied: it is a child of template.
func (d *Driver) CreateFromTemplate(id, template, _ string, o *CreateOptions, readWrite bool) error {
	defer d.recordable.Store(false) // for the copy of the template's tar-split that containers/storage makes
	if readWrite {
		return d.CreateReadWrite(id, template, o)
	}
	return d.Create(id, template, o)
}

func (d *Driver) create(c *layers.Catalog, id, parent string, o *CreateOptions, readWrite bool) error {
	if o == nil {
		o = &CreateOptions{}
	}
	if err := checkStorageOpt(o.StorageOpt, readWrite); err != nil {
		return fmt.Errorf("create layer %q: %w", id, err)
	}
	uid, gid, err := o.Mappings.root()
	if err != nil {
		return fmt.Errorf("create layer %q: %w", id, err)
	}
	lo := layers.CreateOptions{ReadWrite: readWrite, RootUID: uint32(uid), RootGID: uint32(gid)}
	if parent != "" {
		p, err := d.find(parent)
		if err == nil && p.catalog != c {
			lo.Chain, err = d.chain(parent)
		}
		if err != nil {
			return fmt.Errorf("create layer %q: parent: %w", id, err)
		}
	}
	if err := d.replace(c, id); err != nil {
		return fmt.Errorf("create layer %q: %w", id, err)
	}
	d.unwritten.change()
	d.recordable.Store(readWrite) // a container's record needs nothing on the disk
	_, err = c.Create(id, parent, lo)
	return err
}

// checkStorageOpt refuses limits: no option of a layer can be kept, so none may be swallowed.
func checkStorageOpt(opt map[string]string, readWrite bool) error {
	for k, v := range opt {
		switch strings.ToLower(k) {
		case "size", "inodes":
			if !readWrite {
				return fmt.Errorf("storage option %s=%s: %w: it is for writable layers", k, v, ErrOption)
			}
			return fmt.Errorf("storage option %s=%s: %w", k, v, errNoQuota)
		default:
			return fmt.Errorf("storage option %s=%s: %w: it is unknown; there are size and inodes", k, v, ErrOption)
		}
	}
	return nil
}

// replace removes what a crash left under the name of a layer that is about to be made.
func (d *Driver) replace(c *layers.Catalog, id string) error {
	if _, err := os.Lstat(filepath.Dir(mergedDir(c, id))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cleanup, err := d.removeFrom(c, id)
	if err != nil {
		return fmt.Errorf("replace it: %w", err)
	}
	return cleanup()
}

// root returns the owner on disk of a container's root.
func (m Mappings) root() (uid, gid int, err error) {
	if uid, err = toHost(0, m.UIDs); err != nil {
		return 0, 0, fmt.Errorf("user mapping: %w", err)
	}
	if gid, err = toHost(0, m.GIDs); err != nil {
		return 0, 0, fmt.Errorf("group mapping: %w", err)
	}
	return uid, gid, nil
}

// Remove removes a layer, and returns when its bytes are free.
func (d *Driver) Remove(id string) error {
	cleanup, err := d.DeferredRemove(id)
	if err != nil {
		return err
	}
	return cleanup()
}

// DeferredRemove removes a layer of our own at once, whoever may still need it, and returns the slow part, which frees the bytes. It
// fails for no other reason than that the disk refuses: any other error would make the whole store unusable, because
// containers/storage tries again whenever it opens. A layer that does not exist is removed already: containers/storage records a
// layer before it asks for it, and v1.43 takes even fs.ErrNotExist for a failure.
func (d *Driver) DeferredRemove(id string) (func() error, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	for _, c := range d.stores.own() {
		cleanup, err := d.removeFrom(c, id)
		if errors.Is(err, layers.ErrUnknown) {
			continue
		}
		if err != nil {
			leave()
			return nil, err
		}
		return func() error {
			defer leave()
			return cleanup()
		}, nil
	}
	leave()
	return func() error { return nil }, nil
}

func (d *Driver) removeFrom(c *layers.Catalog, id string) (func() error, error) {
	for _, target := range []string{mergedDir(c, id), d.runDir(id)} {
		if err := d.mounts.drop(target); err != nil {
			debug("remove layer %s: %v", id, err)
		}
	}
	d.unwritten.change()
	return c.Remove(id)
}

// mergedDir returns where a layer of our main store is mounted, whether or not its record can be read.
func mergedDir(c *layers.Catalog, id string) string {
	return filepath.Join(c.Home(), "layers", id, "merged")
}
