package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/storage"
	"go.podman.io/storage/types"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// storage goes through containers/storage's public API, as podman does. The
// first row is the peak of memory of a pull; the others inherit it.
func (j *job) storage(m *meter, set *fixtures.Set) error {
	list, err := used(set)
	if err != nil {
		return err
	}
	full, python, before, update := list[0], list[1], list[2], list[3]
	s, err := storage.GetStore(types.StoreOptions{
		GraphRoot: filepath.Join(j.Dir, "root"), RunRoot: filepath.Join(j.Dir, "run"), GraphDriverName: j.Driver,
	})
	if err != nil {
		return err
	}
	st := &stored{s}
	steps := []struct {
		row string
		do  func() error
	}{
		{"put an image into an empty store", func() error { return st.put(full, "") }},
		{"first create and mount after the put", func() error { return st.container(full, "first") }},
		{"put an image that is mostly known", func() error { return st.put(python, "") }},
		{"put the same layers under other ids", func() error { return st.put(python, "again") }},
		{"put an image", func() error { return st.put(before, "") }},
		{"put its security update", func() error { return st.put(update, "") }},
		{"delete the update", func() error { return st.remove(update, "") }},
		{"delete the same layers", func() error { return st.remove(python, "again") }},
	}
	for _, step := range steps {
		if err := m.row(step.row, step.do); err != nil {
			return err
		}
	}
	err = m.repeated("create, mount, unmount, delete a container", 3, 30, func(i int) error {
		return st.container(full, fmt.Sprint(i))
	})
	if err != nil {
		return err
	}
	for _, i := range []fixtures.Image{python, before} {
		if err := st.remove(i, ""); err != nil {
			return err
		}
	}
	if err := m.row("delete the image that is left", func() error { return st.remove(full, "") }); err != nil {
		return err
	}
	_, err = s.Shutdown(true)
	return err
}

// stored is a store with the fixture images.
type stored struct{ storage.Store }

// layerID gives every layer of every image an id of its own: no image of the
// fixtures is pulled on top of another's layers.
func layerID(i fixtures.Image, n int, variant string) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d %s", i.ID, n, variant)))
}

func (s *stored) put(i fixtures.Image, variant string) error {
	parent := ""
	for n, l := range i.Layers {
		f, err := os.Open(l.Tar)
		if err != nil {
			return err
		}
		id := layerID(i, n, variant)
		layer, _, err := s.PutLayer(id, parent, nil, "", false, nil, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if string(layer.UncompressedDigest) != l.DiffID {
			return fmt.Errorf("the layer's digest is %s, not %s", layer.UncompressedDigest, l.DiffID)
		}
		parent = id
	}
	_, err := s.CreateImage(i.ID[:60]+fmt.Sprintf("%04x", len(variant)), []string{i.Ref() + variant}, parent, "", nil)
	return err
}

func (s *stored) remove(i fixtures.Image, variant string) error {
	_, err := s.DeleteImage(i.ID[:60]+fmt.Sprintf("%04x", len(variant)), true)
	return err
}

func (s *stored) container(i fixtures.Image, name string) error {
	c, err := s.CreateContainer("", []string{name}, i.ID[:60]+"0000", "", "", nil)
	if err != nil {
		return err
	}
	root, err := s.Mount(c.ID, "")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/dpkg")); err != nil {
		return err
	}
	if _, err := s.Unmount(c.ID, false); err != nil {
		return err
	}
	return s.DeleteContainer(c.ID)
}
