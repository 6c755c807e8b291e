package main

import (
	"errors"
	"os"
	"path/filepath"

	"go.podman.io/storage"
	"go.podman.io/storage/types"
	"golang.org/x/sync/errgroup"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// together puts four images at once, which share most of their files and no layer.
func (j *job) together(m *meter, set *fixtures.Set) error {
	list, err := images(set, "python", "node", "web", "update-old")
	if err != nil {
		return err
	}
	return errors.Join(
		m.row("put four images at once, one process", func() error {
			st, err := j.open("one")
			if err != nil {
				return err
			}
			var g errgroup.Group
			for _, i := range list {
				g.Go(func() error { return st.put(i, "") })
			}
			err = g.Wait()
			_, shut := st.Shutdown(false)
			return errors.Join(err, shut)
		}),
		m.row("put four images at once, four processes", func() error {
			var g errgroup.Group
			for _, i := range list {
				one := *j
				one.Level, one.Image, one.Profile = "put", i.Name, ""
				g.Go(func() error { _, err := start(&one, ""); return err })
			}
			return g.Wait()
		}),
	)
}

// putOne is one of the four processes.
func (j *job) putOne(set *fixtures.Set) error {
	i, err := set.Image(j.Image)
	if err != nil {
		return err
	}
	st, err := j.open("four")
	if err != nil {
		return err
	}
	err = st.put(i, "")
	_, shut := st.Shutdown(false)
	return errors.Join(err, shut)
}

// open opens the store in a directory of the filesystem.
func (j *job) open(name string) (*stored, error) {
	dir := filepath.Join(j.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	s, err := storage.GetStore(types.StoreOptions{
		GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(j.Run, name), GraphDriverName: j.Driver,
	})
	return &stored{s}, err
}
