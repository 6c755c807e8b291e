package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// Options says how a catalog keeps its layers. Label is fixed when the repository is made; the others may change from open to open.
type Options struct {
	Label       string    // store label (SELinux) of a new repository, "" for none
	SharedTimes bool      // mtime=shared: equal files share an inode whatever their times
	SharedLinks bool      // links=shared: no inodes of their own under etc/ and var/
	NoSync      bool      // sync=none
	UserXattr   bool      // in a user namespace: overlay's marks in tree/ are user.overlay.*, and a tar's devices are left out
	ReadOnly    bool      // open an existing home and write nothing
	Sources     []*Source // repositories on the same filesystem whose objects may be linked
	Meet        string    // directory on a tmpfs in which processes that pull at once tell each other what they write, "" for none
	Segment     int       // how many layers are made one tree for mounts, and in how long a chain; 0 for as many as it should be
}

// A Catalog is the set of container layers in one home directory: which exist, each one's ancestors, and the commit that holds its
// content. Methods may be called from several goroutines and processes; calls that change one layer must not overlap.
type Catalog struct {
	home   string
	o      Options
	repo   *store.Repo
	layers *os.File // home/layers
}

// Names in a home.
const (
	repoName    = "repo"
	layersName  = "layers"
	versionName = "version"
)

// OpenCatalog opens a home, made if it does not exist, and finishes what a crash left undone. The error matches ErrUnsupported if
// the home is of another driver or of a later format, or if its filesystem cannot carry hardlinks between `repo/` and `layers/`.
func OpenCatalog(home string, o Options) (*Catalog, error) {
	c, err := openCatalog(home, o)
	if err != nil {
		return nil, fmt.Errorf("open layers in %s: %w", home, matchUnsupported(err))
	}
	return c, nil
}

func openCatalog(home string, o Options) (_ *Catalog, err error) {
	c := &Catalog{home: home, o: o}
	v, err := readVersion(home)
	isNew := errors.Is(err, fs.ErrNotExist) && !o.ReadOnly
	if err != nil && !isNew {
		return nil, err
	}
	if isNew {
		if err := prepareHome(home); err != nil {
			return nil, err
		}
	} else if err := v.check(&c.o); err != nil {
		return nil, err
	}
	if c.layers, err = os.Open(filepath.Join(home, layersName)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.layers.Close()
		}
	}()
	path := filepath.Join(home, repoName)
	if c.o.ReadOnly {
		c.repo, err = store.Open(path)
	} else {
		c.repo, err = store.Init(path, store.Options{Label: o.Label})
	}
	if err != nil {
		return nil, err
	}
	if err := c.ready(isNew); err != nil {
		c.repo.Close()
		return nil, err
	}
	return c, nil
}

// ready makes sure that links can be made, and finishes what a crash left.
func (c *Catalog) ready(isNew bool) error {
	if c.o.ReadOnly || c.repo.ReadOnly() {
		c.o.ReadOnly = true
		return nil
	}
	if err := sameMount(filepath.Join(c.home, repoName), c.layers.Name(), int(c.layers.Fd())); err != nil {
		return err
	}
	if isNew {
		if err := writeVersion(c.home); err != nil {
			return err
		}
	}
	return c.recover()
}

// recover finishes what dead processes left. Objects of commits that were staged, and never became a layer, go with their stages.
func (c *Catalog) recover() error {
	before, err := c.repo.Refs(stagedRefs)
	if err != nil {
		return err
	}
	if _, err := c.repo.Recover(context.Background()); err != nil || len(before) == 0 {
		return err
	}
	after, err := c.repo.Refs(stagedRefs)
	if err != nil {
		return err
	}
	var dead []object.Checksum
	for name, commit := range before {
		if _, alive := after[name]; !alive {
			dead = append(dead, commit)
		}
	}
	_, err = c.repo.Release(context.Background(), dead...)
	return err
}

// prepareHome makes a new home, unless something else is there.
func prepareHome(home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(home)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == repoName, name == layersName, name == versionName: // a crash cut us short here before
		case strings.HasPrefix(name, "."): // what somebody tries here, or tried when the power went
		default:
			return fmt.Errorf("%w: the directory has no file %q but has %q: another driver made it", ErrUnsupported, versionName, e.Name())
		}
	}
	if err := os.Mkdir(filepath.Join(home, layersName), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// sameMount refuses an open directory to which link(2) from the repository cannot work.
func sameMount(repo, dir string, fd int) error {
	var a, b unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, repo, 0, unix.STATX_MNT_ID, &a); err != nil {
		return &os.PathError{Op: "statx", Path: repo, Err: err}
	}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &b); err != nil {
		return &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	if a.Mnt_id != b.Mnt_id || a.Dev_major != b.Dev_major || a.Dev_minor != b.Dev_minor {
		return fmt.Errorf("%w: %s and %s are on different mounts, so files of one cannot be linked into the other (%w)",
			ErrUnsupported, repo, dir, unix.EXDEV)
	}
	return nil
}

// Close closes the repository. Layers got from the catalog can still be read.
func (c *Catalog) Close() error {
	return errors.Join(c.layers.Close(), c.repo.Close())
}

// Repo returns the catalog's repository.
func (c *Catalog) Repo() *store.Repo { return c.repo }

// Home returns the catalog's directory.
func (c *Catalog) Home() string { return c.home }

// ReadOnly reports whether the catalog was opened for reading only, by option or because its filesystem is.
func (c *Catalog) ReadOnly() bool { return c.o.ReadOnly }

// Options returns the options that the catalog was opened with.
func (c *Catalog) Options() Options { return c.o }

// Exists reports whether there is a layer of that id.
func (c *Catalog) Exists(id string) bool {
	var st unix.Stat_t
	return checkLayerID(id) == nil && unix.Fstatat(int(c.layers.Fd()), id+"/"+recordName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Size > 0
}

// IDs lists the layers of this home in no order, what a crash left of one included: whatever is listed can be removed.
func (c *Catalog) IDs() ([]string, error) {
	d, err := os.Open(filepath.Join(c.home, layersName))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	ids := names[:0]
	for _, n := range names {
		if checkLayerID(n) == nil {
			ids = append(ids, n)
		}
	}
	return ids, nil
}

// Layer returns the layer of that id; the error matches ErrUnknown if there is none.
func (c *Catalog) Layer(id string) (*Layer, error) { return c.load(id, true) }

// load reads a record; without ancestors it is quick for chains of any length.
func (c *Catalog) load(id string, ancestors bool) (*Layer, error) {
	if err := checkLayerID(id); err != nil {
		return nil, err
	}
	l, err := readRecord(int(c.layers.Fd()), id, ancestors)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("layer %s: %w", id, ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of layer %s: %w", id, err)
	}
	l.catalog = c
	if ancestors && l.brief {
		return l, c.completeAncestors(l)
	}
	return l, nil
}

// completeAncestors fills in what a record leaves to that of the parent. Where that is gone the parent alone is known, as is that it is gone
// to whoever looks for it.
func (c *Catalog) completeAncestors(l *Layer) error {
	for at, parent := 1, l.Parent; at < len(l.Ancestors); {
		p, err := readRecord(int(c.layers.Fd()), parent, true)
		if err != nil {
			l.Ancestors = l.Ancestors[:at]
			return nil
		}
		if len(p.Ancestors) != len(l.Ancestors)-at {
			return fmt.Errorf("read the record of layer %s: %w: %s has not the ancestors that it should have", l.ID, errRecord, parent)
		}
		copy(l.Ancestors[at:], p.Ancestors)
		if !p.brief {
			return nil
		}
		at, parent = at+1, p.Parent
	}
	return nil
}
