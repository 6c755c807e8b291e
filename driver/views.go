package driver

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
)

// A view is a mount of a layer for one comparison, at a place of its own: nobody else counts it, and it may be made for a layer that is
// mounted, or of a store that we must not write to, by several processes at once.
type view struct {
	path string
	dir  *os.File // of the directory that holds the mount point; locked as long as the view lives
}

func (d *Driver) viewsDir() string { return filepath.Join(d.runHome, "views") }

// newView makes an empty view.
func (d *Driver) newView() (*view, error) {
	if err := os.MkdirAll(d.viewsDir(), 0o700); err != nil {
		return nil, err
	}
	for {
		v, err := d.tryView()
		if !errors.Is(err, errStale) {
			return v, err
		}
	}
}

// errStale says that another driver took a new view for that of a dead process, before it was locked.
var errStale = errors.New("taken for stale")

func (d *Driver) tryView() (*view, error) {
	dir, err := os.MkdirTemp(d.viewsDir(), "")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errStale
	}
	if err != nil {
		return nil, err
	}
	v := &view{path: filepath.Join(dir, "merged"), dir: f}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = os.Mkdir(v.path, 0o700)
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, fs.ErrNotExist):
		return nil, cmp.Or(f.Close(), errStale)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), v.Close())
	}
	return v, nil
}

// view mounts a layer read-only, with the owners that are on disk.
func (d *Driver) view(id string) (*view, error) {
	l, err := d.find(id)
	if err != nil {
		return nil, err
	}
	v, err := d.newView()
	if err != nil {
		return nil, err
	}
	m, err := d.spec(l, Mappings{}, true, true)
	if err == nil {
		m.Target = v.path
		err = m.Do()
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// Close unmounts the view and removes its place.
func (v *view) Close() error {
	err := overlay.Unmount(v.path)
	if err == nil {
		_ = os.Remove(v.path)
		_ = os.Remove(v.dir.Name())
	}
	return errors.Join(err, v.dir.Close())
}

// removeStaleViews unmounts the views of processes that died.
func (d *Driver) removeStaleViews() {
	names, err := os.ReadDir(d.viewsDir())
	if err != nil {
		return
	}
	for _, n := range names {
		dir := filepath.Join(d.viewsDir(), n.Name())
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			_ = f.Close()
			continue
		}
		v := &view{path: filepath.Join(dir, "merged"), dir: f}
		if err := v.Close(); err != nil {
			debug("remove a stale mount: %v", err)
		}
	}
}
