package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// openDriver opens the job's driver on an empty graphroot.
func (j *job) openDriver() (*applied, graphdriver.Options, error) {
	options := graphdriver.Options{Root: filepath.Join(j.Dir, "root"), RunRoot: filepath.Join(j.Run, "run")}
	for _, dir := range []string{options.Root, options.RunRoot} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, options, err
		}
	}
	d, err := graphdriver.GetDriver(j.Driver, options)
	return &applied{d}, options, err
}

// driver calls the driver as containers/storage does, without the digests and
// records that storage makes around it.
func (j *job) driver(m *meter, set *fixtures.Set) error {
	list, err := images(set, "full", "node", "web")
	if err != nil {
		return err
	}
	full, node, web := list[0], list[1], list[2]
	a, options, err := j.openDriver()
	if err != nil {
		return err
	}
	err = errors.Join(
		m.row("apply an image to an empty store", func() error { return a.apply(full, "") }),
		m.row("apply the same layers under other ids", func() error { return a.apply(full, "again") }),
		a.apply(node, ""),
		m.row("apply an image that is mostly known", func() error { return a.apply(web, "") }),
		m.repeated("create, mount, unmount, remove", 5, 50, func(i int) error { return a.container(full, fmt.Sprint(i)) }),
		m.repeated("size of a committed layer", 1, 5, func(int) error { return a.size(full) }),
		m.repeated("changes of a committed layer", 0, 1, func(int) error { return a.changes(full) }),
		m.repeated("changes between two images", 0, 1, func(int) error { return a.between(full, web) }),
		a.reopen(m, j.Driver, options),
	)
	if err != nil {
		return err
	}
	for _, r := range []struct {
		row, variant string
		image        fixtures.Image
	}{
		{"remove an image whose files are shared", "again", full},
		{"remove an image that shares most", "", web},
		{"", "", node},
		{"remove the image that is left", "", full},
	} {
		if err := a.removed(m, r.row, r.image, r.variant); err != nil {
			return err
		}
	}
	return a.Cleanup()
}

// removed measures a removal, and how much of it is under upstream's lock.
func (a *applied) removed(m *meter, row string, i fixtures.Image, variant string) error {
	if row == "" {
		_, err := a.remove(i, variant)
		return err
	}
	var locked time.Duration
	err := m.row(row, func() (err error) { locked, err = a.remove(i, variant); return err })
	m.timed(row+": of that, under upstream's lock", locked)
	return err
}

// applied is a driver with the fixture images.
type applied struct{ graphdriver.Driver }

func (a *applied) apply(i fixtures.Image, variant string) error {
	parent := ""
	for n, l := range i.Layers {
		id := layerID(i, n, variant)
		if err := a.layer(id, parent, l.Tar); err != nil {
			return err
		}
		parent = id
	}
	return nil
}

func (a *applied) layer(id, parent, tar string) (err error) {
	f, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer f.Close()
	o := graphdriver.ApplyDiffOpts{Diff: f, Mappings: &idtools.IDMappings{}}
	st, ok := a.Driver.(graphdriver.ApplyDiffStaging)
	if !ok {
		return fmt.Errorf("the driver %s cannot stage", a.String())
	}
	cleanup, addition, _, err := st.StartStagingDiffToApply(parent, o)
	if cleanup != nil {
		defer func() { err = errors.Join(err, cleanup()) }()
	}
	if err != nil {
		return err
	}
	if err := a.Create(id, parent, nil); err != nil {
		return err
	}
	return st.CommitStagedLayer(id, addition)
}

func top(i fixtures.Image) string { return layerID(i, len(i.Layers)-1, "") }

func (a *applied) container(i fixtures.Image, name string) error {
	return a.containerOf(top(i), name, graphdriver.MountOpts{})
}

// containerOf creates, mounts, unmounts and removes a container.
func (a *applied) containerOf(parent, name string, o graphdriver.MountOpts) error {
	id := "container-" + name
	if err := a.CreateReadWrite(id, parent, &graphdriver.CreateOpts{}); err != nil {
		return err
	}
	if _, err := a.Get(id, o); err != nil {
		return err
	}
	if err := a.Put(id); err != nil {
		return err
	}
	return a.Remove(id)
}

// size and changes take the image's biggest layer, the third.
func (a *applied) size(i fixtures.Image) error {
	_, err := a.DiffSize(layerID(i, 2, ""), nil, layerID(i, 1, ""), nil, "")
	return err
}

func (a *applied) changes(i fixtures.Image) error {
	list, err := a.Changes(layerID(i, 2, ""), nil, layerID(i, 1, ""), nil, "")
	if err == nil && len(list) < 1000 {
		return fmt.Errorf("only %d changes", len(list))
	}
	return err
}

// between compares the biggest layers of two images, which have nothing to do with each other.
func (a *applied) between(i, o fixtures.Image) error {
	_, err := a.Changes(layerID(i, 2, ""), nil, layerID(o, 1, ""), nil, "")
	return err
}

// reopen measures the driver's own start.
func (a *applied) reopen(m *meter, name string, options graphdriver.Options) error {
	if err := a.Cleanup(); err != nil {
		return err
	}
	return m.repeated("start of the driver", 1, 20, func(int) error {
		d, err := graphdriver.GetDriver(name, options)
		a.Driver = d
		return err
	})
}

// remove removes the image's layers as DeleteImage does, and tells how long
// upstream's lock would be held.
func (a *applied) remove(i fixtures.Image, variant string) (locked time.Duration, err error) {
	began := time.Now()
	var cleanups []func() error
	for n := len(i.Layers) - 1; n >= 0; n-- {
		cleanup, err := a.DeferredRemove(layerID(i, n, variant))
		if err != nil {
			return 0, err
		}
		if cleanup != nil {
			cleanups = append(cleanups, cleanup)
		}
	}
	locked = time.Since(began)
	for _, c := range cleanups {
		err = errors.Join(err, c())
	}
	return locked, err
}
