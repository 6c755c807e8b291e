package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/selinux"
)

// stores are the places that layers are in.
type stores struct {
	main   *layers.Catalog   // `<graphroot>/ostree`
	images *layers.Catalog   // where image layers go: main, or `<imagestore>/ostree`
	others []additionalStore // read-only
	all    layers.Catalogs   // every one that is readable, in the order of looking
	shared []*layers.Source  // repositories of share_with
	absent []string          // those of share_with that cannot be used, and why
}

// An additionalStore is a whole store of containers/storage that is only read.
type additionalStore struct {
	path    string
	pinned  bool
	catalog *layers.Catalog // nil if hidden
	hidden  error           // why it is not offered
}

// segment is how many layers are made one tree, 0 for as many as it should be; tests change it.
var segment int

func imageStoreHome(imageStore string) string {
	if imageStore == "" {
		return ""
	}
	return filepath.Join(imageStore, Name)
}

// own returns the catalogs that this driver writes to.
func (s *stores) own() []*layers.Catalog {
	if s.images == s.main {
		return []*layers.Catalog{s.main}
	}
	return []*layers.Catalog{s.main, s.images}
}

// owns reports whether c is one of own.
func (s *stores) owns(c *layers.Catalog) bool { return c == s.main || c == s.images }

// close closes every store.
func (s *stores) close() error {
	var errs []error
	for _, c := range s.all {
		errs = append(errs, c.Close())
	}
	for _, r := range s.shared {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// openStores opens every store, the read-only ones first: the others link known objects from them.
func (d *Driver) openStores() (_ *stores, err error) {
	s := &stores{others: d.openAdditional()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	var sources []*layers.Source
	for _, o := range s.others {
		if o.catalog != nil {
			sources = append(sources, o.catalog.Source())
			s.all = append(s.all, o.catalog)
		}
	}
	for _, path := range d.settings.ShareWith {
		r, err := layers.OpenSource(path)
		if err != nil {
			s.absent = append(s.absent, fmt.Sprintf("%s (%v)", path, err))
			continue
		}
		s.shared = append(s.shared, r)
	}
	sources = append(sources, s.shared...)
	if s.main, err = d.openOwn(d.home, sources); err != nil {
		return s, err
	}
	s.images = s.main
	if home := imageStoreHome(d.imageStore); home != "" {
		if s.images, err = d.openOwn(home, append(slices.Clip(sources), s.main.Source())); err != nil {
			s.all = append(s.all, s.main)
			return s, err
		}
	}
	s.all = append(s.own(), s.all...)
	d.registerWith(s.others)
	return s, nil
}

// openOwn opens or makes a home that we write to.
func (d *Driver) openOwn(home string, sources []*layers.Source) (*layers.Catalog, error) {
	o := layers.Options{
		SharedTimes: d.settings.SharedTimes,
		SharedLinks: d.settings.SharedLinks,
		NoSync:      d.settings.Sync == SyncNone,
		UserXattr:   d.userXattr(),
		Sources:     sources,
		Meet:        d.runHome,
		Segment:     segment,
	}
	label, err := d.storeLabel(home)
	if err != nil {
		return nil, err
	}
	o.Label = label
	return layers.OpenCatalog(home, o)
}

// storeLabel returns the label for the repository of a home: that of the option, of the repository, or of the host's policy.
func (d *Driver) storeLabel(home string) (string, error) {
	if d.settings.LabelSet {
		return d.settings.Label, nil
	}
	label, err := layers.StoreLabel(home)
	if errors.Is(err, fs.ErrNotExist) {
		return selinux.StoreLabel(), nil
	}
	return label, err
}

// openAdditional opens the read-only stores of the options and the pinned store.
func (d *Driver) openAdditional() []additionalStore {
	var out []additionalStore
	add := func(path string, pinned bool) {
		for _, o := range out {
			if o.path == path {
				return
			}
		}
		s := additionalStore{path: path, pinned: pinned}
		if same(path, d.root) || (d.imageStore != "" && same(path, d.imageStore)) {
			s.hidden = errors.New("it is the store itself")
		} else {
			s.catalog, s.hidden = openReadOnly(path)
		}
		out = append(out, s)
	}
	for _, path := range d.settings.ImageStores {
		add(path, false)
	}
	if path := PinnedStore(d.settings.PinnedStore, d.root, filepath.Dir(d.runHome)); path != "" {
		add(path, true)
	}
	return out
}

// openReadOnly opens an additional store, or says why it cannot be offered: containers/storage would fail as a whole.
func openReadOnly(path string) (*layers.Catalog, error) {
	if err := readableStore(path); err != nil {
		return nil, err
	}
	return layers.OpenCatalog(filepath.Join(path, Name), layers.Options{ReadOnly: true, Segment: segment})
}

// same reports whether two paths are one directory.
func same(a, b string) bool {
	sa, errA := os.Stat(a)
	sb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(sa, sb)
}

// AdditionalImageStores returns the read-only stores that can be read now. One that cannot is left out, because
// containers/storage would fail as a whole.
func (d *Driver) AdditionalImageStores() []string {
	leave, err := d.enter()
	if err != nil {
		return nil
	}
	defer leave()
	var out []string
	for _, o := range d.stores.others {
		if o.catalog != nil && readableStore(o.path) == nil {
			out = append(out, o.path)
		}
	}
	return out
}

// A found layer is a layer and the store that has it.
type found struct {
	*layers.Layer
	catalog *layers.Catalog
}

// find looks for a layer in every store.
func (d *Driver) find(id string) (found, error) {
	for _, c := range d.stores.all {
		l, err := c.Layer(id)
		if err == nil {
			return found{l, c}, nil
		}
		if !errors.Is(err, layers.ErrUnknown) {
			return found{}, err
		}
	}
	return found{}, fmt.Errorf("layer %q: %w", id, ErrUnknownLayer)
}

// findOwn looks for a layer in the stores that we write to.
func (d *Driver) findOwn(id string) (found, error) {
	l, err := d.find(id)
	if err != nil {
		return found{}, err
	}
	if !d.stores.owns(l.catalog) {
		return found{}, fmt.Errorf("layer %q is in the read-only store of %s: %w", id, l.catalog.Home(), ErrUnknownLayer)
	}
	return l, nil
}

// Exists reports whether there is such a layer, in any store.
func (d *Driver) Exists(id string) bool {
	leave, err := d.enter()
	if err != nil {
		return false
	}
	defer leave()
	_, err = d.find(id)
	return err == nil
}

// ListLayers returns the layers that this driver owns, those of additional stores left out. They may be removed in that order.
func (d *Driver) ListLayers() ([]string, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var ids []string
	for _, c := range d.stores.own() {
		more, err := c.IDs()
		if err != nil {
			return nil, err
		}
		ids = append(ids, more...)
	}
	return ids, nil
}
