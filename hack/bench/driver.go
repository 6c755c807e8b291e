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

// driver calls the driver as containers/storage does, without the digests and
// records that storage makes around it.
func (j *job) driver(m *meter, set *fixtures.Set) error {
	list, err := used(set)
	if err != nil {
		return err
	}
	full, python := list[0], list[1]
	options := graphdriver.Options{Root: filepath.Join(j.Dir, "root"), RunRoot: filepath.Join(j.Dir, "run")}
	for _, dir := range []string{options.Root, options.RunRoot} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	d, err := graphdriver.GetDriver(j.Driver, options)
	if err != nil {
		return err
	}
	a := &applied{d}
	err = errors.Join(
		m.row("apply an image to an empty store", func() error { return a.apply(full, "") }),
		m.row("apply an image that is mostly known", func() error { return a.apply(python, "") }),
		m.row("apply the same layers under other ids", func() error { return a.apply(python, "again") }),
		m.repeated("create, mount, unmount, remove", 5, 50, func(i int) error { return a.container(full, fmt.Sprint(i)) }),
		m.repeated("size of a committed layer", 1, 5, func(int) error { return a.size(full) }),
		m.repeated("changes of a committed layer", 0, 1, func(int) error { return a.changes(full) }),
		a.reopen(m, j.Driver, options),
	)
	if err != nil {
		return err
	}
	var locked time.Duration
	err = m.row("remove an image whose files are shared", func() (err error) { locked, err = a.remove(python, ""); return err })
	if err != nil {
		return err
	}
	m.timed("of that, under upstream's lock", locked)
	if _, err := a.remove(python, "again"); err != nil {
		return err
	}
	err = m.row("remove the image that is left", func() (err error) { locked, err = a.remove(full, ""); return err })
	if err != nil {
		return err
	}
	m.timed("of that, under upstream's lock (last)", locked)
	return a.Cleanup()
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
	id := "container-" + name
	if err := a.CreateReadWrite(id, top(i), &graphdriver.CreateOpts{}); err != nil {
		return err
	}
	if _, err := a.Get(id, graphdriver.MountOpts{}); err != nil {
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
