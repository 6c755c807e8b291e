package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"

	"github.com/ostree-storage/ostree-storage/layers"
	_ "github.com/ostree-storage/ostree-storage/plugin" // the driver
)

// driverName is the only driver that this program knows, whatever storage.conf says.
const driverName = "ostree"

// options are the options with which containers/storage is opened: storage.conf's, then those of the command line. An ordinary user
// gets into his user namespace before.
func (a *app) options() (types.StoreOptions, error) {
	if err := enterUserNamespace(); err != nil {
		return types.StoreOptions{}, err
	}
	o, err := storage.DefaultStoreOptions()
	if err != nil {
		return o, advise(fmt.Errorf("read storage.conf: %w", err), "man containers-storage.conf")
	}
	o.GraphDriverName = driverName
	if a.root != "" {
		o.GraphRoot = a.root
	}
	if a.runroot != "" {
		o.RunRoot = a.runroot
	}
	if len(a.storageOpts) > 0 {
		o.GraphDriverOptions = a.storageOpts
	}
	if a.withoutPins {
		o.GraphDriverOptions = append(slices.Clone(o.GraphDriverOptions), "pinned_store=none")
	}
	return o, nil
}

// graphroot returns where the store is or would be, and whether it is there.
func (a *app) graphroot() (string, bool, error) {
	o, err := a.options()
	if err != nil {
		return "", false, err
	}
	_, err = os.Stat(filepath.Join(o.GraphRoot, driverName, "version"))
	if errors.Is(err, fs.ErrNotExist) {
		return o.GraphRoot, false, nil
	}
	return o.GraphRoot, err == nil, err
}

// store opens the store, once.
func (a *app) store() (storage.Store, error) {
	if a.opened != nil {
		return a.opened, nil
	}
	o, err := a.options()
	if err != nil {
		return nil, err
	}
	s, err := storage.GetStore(o)
	if err != nil {
		return nil, advise(fmt.Errorf("open store %s: %w", o.GraphRoot, err), "storagectl status")
	}
	a.opened = s
	return s, nil
}

// catalogs opens the homes of all stores for reading, our own first.
func (a *app) catalogs() (layers.Catalogs, error) {
	if a.homes != nil {
		return a.homes, nil
	}
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	d, err := s.GraphDriver()
	if err != nil {
		return nil, fmt.Errorf("open driver: %w", err)
	}
	roots := []string{s.GraphRoot()}
	if s.ImageStore() != "" {
		roots = append(roots, s.ImageStore())
	}
	own := len(roots)
	for i, root := range append(roots, d.AdditionalImageStores()...) {
		c, err := layers.OpenCatalog(filepath.Join(root, driverName), layers.Options{ReadOnly: true})
		if err != nil && i >= own {
			continue // hidden from everybody, and the driver's status says so
		}
		if err != nil {
			return nil, err
		}
		a.homes = append(a.homes, c)
	}
	return a.homes, nil
}

// isPinned tells if a home is the pinned store's.
func (a *app) isPinned(home int) bool {
	path, err := a.pinnedStore()
	return err == nil && path != "" && a.homes[home].Home() == filepath.Join(path, driverName)
}

// isOurs tells if a home is one that we may write to: graphroot's, the image store's, the pinned store's.
func (a *app) isOurs(home int) bool {
	return home == 0 || home == 1 && a.opened.ImageStore() != "" || a.isPinned(home)
}

// writable opens the home of a store of ours for changes.
func (a *app) writable(root string) (*layers.Catalog, error) {
	return writableHome(filepath.Join(root, driverName))
}

func writableHome(home string) (*layers.Catalog, error) {
	label, err := layers.StoreLabel(home)
	if err != nil {
		return nil, err
	}
	return layers.OpenCatalog(home, layers.Options{Label: label, UserXattr: unshare.IsRootless()})
}

func (a *app) close() error {
	var errs []error
	for _, c := range a.homes {
		errs = append(errs, c.Close())
	}
	a.homes = nil
	if a.opened != nil {
		s := a.opened
		a.opened = nil
		if a.keep || a.looked {
			s.Free()
			return errors.Join(errs...)
		}
		if _, err := s.Shutdown(false); err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
			errs = append(errs, fmt.Errorf("close store: %w", err))
		}
	}
	return errors.Join(errs...)
}
