package pins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/lockfile"
	"go.podman.io/storage/pkg/unshare"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// A cloner brings layers into the pinned store without their tars: content by links, or reflinks or copies of files, and records as they
// are. containers/storage has no call for that, so the records are written where it keeps them, under its lock.
type cloner struct {
	s     *Store
	from  layers.Catalogs // homes of the main store and of those that it reads
	to    *layers.Catalog
	ready []*storage.Layer // cloned, and without a record yet
	total int64            // entries of all layers
	done  int64
}

func (s *Store) newCloner(main storage.Store) (_ *cloner, err error) {
	c := &cloner{s: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	d, err := main.GraphDriver()
	if err != nil {
		return nil, fmt.Errorf("open the main store's driver: %w", err)
	}
	for _, root := range append([]string{s.o.Main.GraphRoot, s.o.Main.ImageStore}, d.AdditionalImageStores()...) {
		if root == "" {
			continue
		}
		home, err := layers.OpenCatalog(filepath.Join(root, driverName), layers.Options{ReadOnly: true})
		if err != nil {
			return nil, err
		}
		c.from = append(c.from, home)
	}
	home := filepath.Join(s.o.Path, driverName)
	label, err := layers.StoreLabel(home)
	if err != nil {
		return nil, err
	}
	o := layers.Options{Label: label, SharedTimes: s.o.SharedTimes, UserXattr: unshare.IsRootless()}
	c.to, err = layers.OpenCatalog(home, o)
	return c, err
}

func (c *cloner) close() error {
	var errs []error
	for _, home := range c.from {
		errs = append(errs, home.Close())
	}
	if c.to != nil {
		errs = append(errs, c.to.Close())
	}
	return errors.Join(errs...)
}

// copyLayers makes layers of the main store layers of the pinned one, parents first.
func (s *Store) copyLayers(ctx context.Context, main storage.Store, list []*storage.Layer) (err error) {
	if len(list) == 0 {
		return nil
	}
	c, err := s.newCloner(main)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.drop(), c.close()) }()
	for _, l := range list {
		if _, bad := l.Flags["incomplete"]; bad {
			return fmt.Errorf("layer %s is incomplete: %w", short(l.ID), ErrDamaged)
		}
		if here, err := c.from.Find(l.ID); err == nil {
			c.total += here.Entries
		}
	}
	for n, l := range list {
		cloned, err := c.clone(ctx, l)
		if err != nil {
			return fmt.Errorf("copy layer %s: %w", short(l.ID), err)
		}
		if cloned {
			continue
		}
		if err := c.flush(); err != nil { // its parent has to be known
			return err
		}
		s.o.Message(fmt.Sprintf("layer %d of %d is copied: %s", n+1, len(list), short(l.ID)))
		if err := s.copyLayer(main, l); err != nil {
			return fmt.Errorf("copy layer %s: %w", short(l.ID), err)
		}
	}
	return c.flush()
}

// drop removes what was cloned and got no record.
func (c *cloner) drop() error {
	var errs []error
	for n := len(c.ready) - 1; n >= 0; n-- {
		cleanup, err := c.to.Remove(c.ready[n].ID)
		errs = append(errs, err, cleanup())
	}
	c.ready = nil
	return errors.Join(errs...)
}

// clone clones one layer. It reports false for one that can come as a tar only.
func (c *cloner) clone(ctx context.Context, l *storage.Layer) (bool, error) {
	from, err := c.from.Find(l.ID)
	if errors.Is(err, layers.ErrUnknown) {
		return false, fmt.Errorf("the driver has no such layer: %w", ErrDamaged)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !from.Applied() || layers.CanClone(c.to, from) != nil {
		return false, nil
	}
	o := layers.CloneOptions{Unread: c.s.o.Unread, Tell: func(done int64) { c.tell(c.done + done) }}
	err = layers.Clone(ctx, c.to, from, o)
	var corrupt *store.CorruptError
	var missing *store.MissingError
	if errors.As(err, &corrupt) || errors.As(err, &missing) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return false, err
	}
	if err := c.files(from, l); err != nil {
		return false, err
	}
	c.ready = append(c.ready, l)
	c.done += from.Entries
	c.tell(c.done)
	return true, nil
}

func (c *cloner) tell(done int64) {
	if c.s.o.Progress != nil {
		c.s.o.Progress(done, c.total)
	}
}

// files copies what containers/storage keeps of a layer beside its record: the tar-split and big data. They are no links: it may write
// a file again in place.
func (c *cloner) files(from *layers.Layer, l *storage.Layer) error {
	there := filepath.Join(filepath.Dir(from.Catalog().Home()), driverName+"-layers")
	here := filepath.Join(c.s.o.Path, driverName+"-layers")
	split := l.ID + ".tar-split.gz"
	if err := copyFile(filepath.Join(here, split), filepath.Join(there, split)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(there, l.ID))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	if len(entries) < len(l.BigDataNames) {
		return fmt.Errorf("%d of its %d pieces of big data are there: %w", len(entries), len(l.BigDataNames), ErrDamaged)
	}
	for _, e := range entries {
		if err := os.MkdirAll(filepath.Join(here, l.ID), 0o700); err != nil {
			return err
		}
		if err := copyFile(filepath.Join(here, l.ID, e.Name()), filepath.Join(there, l.ID, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyFile writes a file anew, as a reflink where the filesystem can.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		_, err = io.Copy(out, in)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// flush makes the cloned layers durable and then writes their records.
func (c *cloner) flush() (err error) {
	if len(c.ready) == 0 {
		return nil
	}
	if err := c.to.Repo().Sync(); err != nil {
		return err
	}
	dir := filepath.Join(c.s.o.Path, driverName+"-layers")
	lock, err := lockfile.GetLockFile(filepath.Join(dir, "layers.lock"))
	if err != nil {
		return fmt.Errorf("lock the layers of the pinned store: %w", err)
	}
	lock.Lock()
	defer lock.Unlock()
	path := filepath.Join(dir, "layers.json")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	records := []json.RawMessage{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &records); err != nil {
			return fmt.Errorf("read %s: %w: %w", path, ErrDamaged, err)
		}
	}
	for _, l := range c.ready {
		record, err := json.Marshal(l)
		if err != nil {
			return err
		}
		records = append(records, record)
	}
	if text, err = json.Marshal(records); err != nil {
		return err
	}
	// Before the file, as containers/storage does: who reads it later knows that it has changed.
	if _, err := lock.RecordWrite(); err != nil {
		return fmt.Errorf("note the change of the pinned store's layers: %w", err)
	}
	if err := writeFile(path, text, 0o600); err != nil {
		return err
	}
	c.ready = nil
	return nil
}
