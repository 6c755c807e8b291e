package differential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	graphdriver "go.podman.io/storage/drivers"
	_ "go.podman.io/storage/drivers/overlay" // the oracle registers itself
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/idtools"
)

// Side is one of the two drivers of a comparison.
type Side struct {
	Name    string // for reports: "overlay" or "ours"
	Driver  graphdriver.Driver
	kind    string // the driver's registered name
	options graphdriver.Options
}

// OpenSide opens the driver that is registered under kind on root, as
// containers/storage would.
func OpenSide(name, kind, root string, options ...string) (*Side, error) {
	if kind == "overlay" {
		options = append(options, "skip_mount_home=true")
	}
	s := &Side{Name: name, kind: kind, options: graphdriver.Options{
		Root: filepath.Join(root, "root"), RunRoot: filepath.Join(root, "run"), DriverOptions: options,
	}}
	for _, dir := range []string{s.options.Root, s.options.RunRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return s, s.open()
}

func (s *Side) open() error {
	d, err := graphdriver.GetDriver(s.kind, s.options)
	if err != nil {
		return fmt.Errorf("open the driver %s: %w", s.kind, err)
	}
	s.Driver = d
	return nil
}

// Home is the driver's directory.
func (s *Side) Home() string { return filepath.Join(s.options.Root, s.kind) }

// TreeDir is where the driver keeps a layer's own files.
func (s *Side) TreeDir(id string) string {
	if s.kind == "overlay" {
		return filepath.Join(s.Home(), id, "diff")
	}
	return filepath.Join(s.Home(), "layers", id, "tree")
}

// Reopen ends the driver and opens it again, as the next program would.
func (s *Side) Reopen() error {
	if err := s.Driver.Cleanup(); err != nil {
		return fmt.Errorf("clean up %s: %w", s.Name, err)
	}
	return s.open()
}

// Close ends the driver.
func (s *Side) Close() error { return s.Driver.Cleanup() }

// Apply makes the layer id above parent from a tar and returns the size that
// the driver gives. With staged it goes the way of pulls: extraction before the
// layer exists. If the error is errUnreadable, the layer is there.
func (s *Side) Apply(id, parent string, tar []byte, staged bool) (int64, error) {
	size, err := int64(0), error(nil)
	if st, ok := s.Driver.(graphdriver.ApplyDiffStaging); ok && staged {
		size, err = s.applyStaged(st, id, parent, tar)
		if unreadable(err) {
			return s.Apply(id, parent, tar, false)
		}
		return size, err
	}
	if err := s.Driver.Create(id, parent, nil); err != nil {
		return 0, fmt.Errorf("create %s: %w", id, err)
	}
	size, err = s.Driver.ApplyDiff(id, applyOpts(tar))
	if unreadable(err) {
		return 0, errUnreadable
	}
	if err != nil {
		return 0, errors.Join(err, s.Driver.Remove(id))
	}
	return size, nil
}

func (s *Side) applyStaged(st graphdriver.ApplyDiffStaging, id, parent string, tar []byte) (size int64, err error) {
	cleanup, addition, size, err := st.StartStagingDiffToApply(parent, applyOpts(tar))
	if cleanup != nil {
		defer func() {
			if cleanErr := cleanup(); cleanErr != nil {
				err = errors.Join(err, cleanErr)
			}
		}()
	}
	if err != nil {
		return 0, err
	}
	if err := s.Driver.Create(id, parent, nil); err != nil {
		return 0, fmt.Errorf("create %s: %w", id, err)
	}
	if err := st.CommitStagedLayer(id, addition); err != nil {
		return 0, errors.Join(err, s.Driver.Remove(id))
	}
	return size, nil
}

func applyOpts(tar []byte) graphdriver.ApplyDiffOpts {
	return graphdriver.ApplyDiffOpts{Diff: bytes.NewReader(tar), Mappings: &idtools.IDMappings{}}
}

// errUnreadable is what the oracle's walks end with below a directory whose name
// is not UTF-8: they use io/fs, which takes such paths for invalid. The kernel
// has no such limit, so the layer itself is there and right.
var errUnreadable = errors.New("the oracle does not read directories whose names are not UTF-8")

func unreadable(err error) bool {
	return errors.Is(err, errUnreadable) || errors.Is(err, fs.ErrInvalid) && strings.Contains(err.Error(), "readdir ")
}

// Mounted mounts a layer, calls f with the root, and unmounts it.
func (s *Side) Mounted(id string, f func(root string) error, options ...string) (err error) {
	root, err := s.Driver.Get(id, graphdriver.MountOpts{Options: options})
	if err != nil {
		return fmt.Errorf("mount %s of %s: %w", id, s.Name, err)
	}
	defer func() {
		if putErr := s.Driver.Put(id); putErr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s of %s: %w", id, s.Name, putErr))
		}
	}()
	return f(root)
}

// Tree walks the mounted root of a layer.
func (s *Side) Tree(id string, options ...string) (*Tree, error) {
	var t *Tree
	err := s.Mounted(id, func(root string) error {
		var err error
		t, err = Walk(root)
		return err
	}, options...)
	if err != nil {
		return nil, fmt.Errorf("walk %s of %s: %w", id, s.Name, err)
	}
	return t, nil
}

// Diff returns the tar that the driver itself makes of a layer.
func (s *Side) Diff(id, parent string) ([]byte, error) {
	r, err := s.Driver.Diff(id, nil, parent, nil, "")
	if err != nil {
		return nil, fmt.Errorf("diff %s of %s: %w", id, s.Name, err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read the diff %s of %s: %w", id, s.Name, err)
	}
	return b, nil
}

// Changes returns the driver's list of changes as lines, in the driver's order.
func (s *Side) Changes(id, parent string) ([]string, error) {
	list, err := s.Driver.Changes(id, nil, parent, nil, "")
	if err != nil {
		return nil, fmt.Errorf("changes of %s of %s: %w", id, s.Name, err)
	}
	letter := map[archive.ChangeType]string{archive.ChangeAdd: "A", archive.ChangeModify: "C", archive.ChangeDelete: "D"}
	lines := make([]string, 0, len(list))
	for _, c := range list {
		lines = append(lines, letter[c.Kind]+" "+c.Path)
	}
	return lines, nil
}

// Content returns what the driver serves for a name of a layer's tar.
func (s *Side) Content(id string, names []string) (map[string][]byte, error) {
	d, ok := s.Driver.(graphdriver.DiffGetterDriver)
	if !ok {
		return nil, fmt.Errorf("the driver %s has no DiffGetter", s.kind)
	}
	g, err := d.DiffGetter(id)
	if err != nil {
		return nil, fmt.Errorf("open the files of %s: %w", id, err)
	}
	defer g.Close()
	out := map[string][]byte{}
	for _, name := range names {
		r, err := g.Get(name)
		if err != nil {
			return nil, fmt.Errorf("open %q of %s: %w", name, id, err)
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("read %q of %s: %w", name, id, err)
		}
		out[name] = b
	}
	return out, nil
}
