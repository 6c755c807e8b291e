package pins

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.podman.io/storage"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

const driverName = "ostree"

// Options say where the two stores are.
type Options struct {
	Path        string                  // of the pinned store
	Main        types.StoreOptions      // the store that images are pinned from
	SharedTimes bool                    // the option mtime=shared holds
	Unread      bool                    // pin without reading files to compare them with their checksums
	Message     func(string)            // gets what is to be said before and during long work; may be nil
	Progress    func(done, total int64) // gets how many entries of an image's layers are done; may be nil
	Wait        time.Duration           // how long to wait for another process that has the pinned store open
}

// A Store is the pinned store, opened to be written. Only one process has it open so at a time.
type Store struct {
	o    Options
	lock *os.File
	own  storage.Store // the pinned store as containers/storage sees it
	main storage.Store // opened by the first that needs it
	view string        // of a store that is only read: the directory of the empty store that shows it
	made bool          // Open made the directory: Close removes it if nothing has come into it
}

// Open opens the pinned store; with create it is made if it does not exist. Otherwise the error matches ErrNoStore then. It waits for
// another process that has it open, and then fails with ErrBusy. Of a store that may only be read the error matches ErrReadOnly. The
// caller must call Close.
func Open(o Options, create bool) (_ *Store, err error) {
	s := &Store{o: o.filled()}
	if err := checkPlace(o.Path, o.Main.GraphRoot, o.Main.RunRoot); err != nil {
		return nil, err
	}
	if err := s.exists(); errors.Is(err, ErrNoStore) && create {
		_, missing := os.Lstat(o.Path)
		if err := os.MkdirAll(o.Path, 0o700); err != nil {
			return nil, fmt.Errorf("make the pinned store: %w", readOnly(err))
		}
		s.made = errors.Is(missing, fs.ErrNotExist)
	} else if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.lock, err = lockFile(filepath.Join(o.Path, "pins.lock"), s.o); err != nil {
		return nil, fmt.Errorf("lock the pinned store %s: %w", o.Path, readOnly(err))
	}
	if s.own, err = storage.GetStore(s.ownOptions()); err != nil {
		return nil, fmt.Errorf("open the pinned store %s: %w", o.Path, readOnly(err))
	}
	// The layer store makes its files when it is first used, and the driver hides a store without them.
	if _, err := s.own.Layers(); err != nil {
		return nil, fmt.Errorf("open the layers of the pinned store %s: %w", o.Path, err)
	}
	return s, nil
}

// exists tells if there is a pinned store.
func (s *Store) exists() error {
	_, err := os.Stat(filepath.Join(s.o.Path, driverName+"-images"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %s: nothing is pinned", ErrNoStore, s.o.Path)
	}
	if err != nil {
		return fmt.Errorf("open the pinned store: %w", readOnly(err))
	}
	return nil
}

func (o Options) filled() Options {
	if o.Message == nil {
		o.Message = func(string) {}
	}
	return o
}

// readOnly makes an error of what may only be read, or not even that, match ErrReadOnly.
func readOnly(err error) error {
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// lockFile takes the lock, and says so if it has to wait for it.
func lockFile(path string, o Options) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(o.Wait)
	for said := false; ; time.Sleep(lockPause) {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		if err == nil && isAt(f, path) {
			return f, nil
		}
		if err == nil { // who had it has removed a store that stayed empty
			return nil, errors.Join(fmt.Errorf("its directory was removed meanwhile: %w", ErrBusy), f.Close())
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		if time.Now().After(until) {
			return nil, errors.Join(fmt.Errorf("another process has it open: %w", ErrBusy), f.Close())
		}
		if !said {
			o.Message("waiting for another process that has the pinned store open")
			said = true
		}
	}
}

// isAt tells if a file still has its name.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

// empty tells if nothing is in the store.
func (s *Store) empty() bool {
	if s.own == nil {
		return true
	}
	images, err := s.own.Images()
	layers, err2 := s.own.Layers()
	_, err3 := os.Lstat(tablePath(s.o.Path))
	return err == nil && err2 == nil && len(images)+len(layers) == 0 && errors.Is(err3, fs.ErrNotExist)
}

// lockPause is how long to wait between two looks at the lock.
const lockPause = 20 * time.Millisecond

// Close closes both stores. A pinned store that Open made for a pin that failed goes again.
func (s *Store) Close() error {
	var errs []error
	goes := s.made && s.lock != nil && s.empty()
	for _, st := range []storage.Store{s.main, s.own} {
		if st == nil {
			continue
		}
		if _, err := st.Shutdown(false); err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
			errs = append(errs, err)
		}
		st.Free()
	}
	if goes && errors.Join(errs...) == nil {
		if err := os.RemoveAll(s.o.Path); err != nil {
			errs = append(errs, fmt.Errorf("remove the pinned store, which stayed empty: %w", err))
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.view != "" {
		errs = append(errs, os.RemoveAll(s.view))
	}
	return errors.Join(errs...)
}

// Path returns the directory of the pinned store.
func (s *Store) Path() string { return s.o.Path }

// Repo returns the directory of the pinned store's repository.
func (s *Store) Repo() string { return filepath.Join(s.o.Path, driverName, "repo") }

// notInherited are the options of the main store that the pinned one does not take over.
var notInherited = []string{"pinned_store", "imagestore", "additionalimagestore", "share_with", "sync", "store_label", "size", "inodes"}

// keyOf returns an option's key without prefix.
func keyOf(option string) string {
	name, _, _ := strings.Cut(option, "=")
	return name[strings.LastIndexByte(name, '.')+1:]
}

// ownOptions are the options for the pinned store.
func (s *Store) ownOptions() types.StoreOptions {
	o := types.StoreOptions{
		GraphRoot:       s.o.Path,
		RunRoot:         filepath.Join(s.o.Main.RunRoot, "ostree-pins"),
		GraphDriverName: driverName,
		UIDMap:          s.o.Main.UIDMap,
		GIDMap:          s.o.Main.GIDMap,
		PullOptions:     map[string]string{},
	}
	for _, option := range s.o.Main.GraphDriverOptions {
		if !slices.Contains(notInherited, keyOf(option)) {
			o.GraphDriverOptions = append(o.GraphDriverOptions, option)
		}
	}
	o.GraphDriverOptions = append(o.GraphDriverOptions, "pinned_store=none", "sync=filesystem")
	var share []string
	for _, root := range []string{s.o.Main.GraphRoot, s.o.Main.ImageStore} {
		if root == "" {
			continue
		}
		home := filepath.Join(root, driverName)
		if label, err := layers.StoreLabel(home); err == nil {
			share = append(share, filepath.Join(home, "repo"))
			if _, err := os.Stat(s.Repo()); errors.Is(err, fs.ErrNotExist) && label != "" {
				o.GraphDriverOptions = append(o.GraphDriverOptions, "store_label="+label)
			}
		}
	}
	if how, err := sharingOf(s.o.Main.GraphRoot, s.o.Path); err != nil || how != ByLink {
		share = nil
	}
	if len(share) > 0 {
		o.GraphDriverOptions = append(o.GraphDriverOptions, "share_with="+strings.Join(share, ":"))
	}
	return o
}

// mainStore opens the store that images come from, without its pinned one.
func (s *Store) mainStore() (storage.Store, error) {
	if s.main != nil {
		return s.main, nil
	}
	o := s.o.Main
	o.GraphDriverName = driverName
	o.GraphDriverOptions = nil
	for _, option := range s.o.Main.GraphDriverOptions {
		key := keyOf(option)
		_, value, _ := strings.Cut(option, "=")
		if key == "pinned_store" || key == "imagestore" && slices.Contains(strings.Split(value, ","), s.o.Path) {
			continue
		}
		o.GraphDriverOptions = append(o.GraphDriverOptions, option)
	}
	o.GraphDriverOptions = append(o.GraphDriverOptions, "pinned_store=none")
	main, err := storage.GetStore(o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.GraphRoot, err)
	}
	s.main = main
	return main, nil
}
