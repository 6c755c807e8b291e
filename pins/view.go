package pins

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/storage"
	"go.podman.io/storage/types"
)

// View opens the pinned store to look at it: List, Held and Verify work, and nothing else. It takes no lock and writes nothing into the
// store, which may be on a read-only filesystem or be another user's. The caller must call Close.
func View(o Options) (_ *Store, err error) {
	s := &Store{o: o.filled()}
	if o.Path == "" {
		return nil, fmt.Errorf("pinned_store=none: there is no place for pins: %w", ErrRefused)
	}
	if err := s.exists(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, lock := range []string{"images", "layers"} {
		f, err := os.Open(filepath.Join(o.Path, driverName+"-"+lock, lock+".lock"))
		if err != nil {
			return nil, fmt.Errorf("open the pinned store: %w", readOnly(err))
		}
		f.Close()
	}
	// containers/storage reads a store as an additional one of another, which is empty.
	if s.view, err = os.MkdirTemp("", "ostree-pins-"); err != nil {
		return nil, err
	}
	s.own, err = storage.GetStore(types.StoreOptions{
		GraphRoot: filepath.Join(s.view, "root"), RunRoot: filepath.Join(s.view, "run"), GraphDriverName: driverName,
		GraphDriverOptions: []string{"imagestore=" + o.Path, "pinned_store=none"}, UIDMap: o.Main.UIDMap, GIDMap: o.Main.GIDMap,
		PullOptions: map[string]string{},
	})
	if err != nil {
		return nil, fmt.Errorf("open the pinned store %s: %w", o.Path, err)
	}
	return s, nil
}

// has tells by the mark of a record of s.own if it is the pinned store's.
func (s *Store) has(readOnly bool) bool { return readOnly == (s.view != "") }
