package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

const (
	buildSteps = 20
	stepFiles  = 60
)

// build makes an image in steps as buildah does with layers: of each step a container of the image so far, whose difference is a new
// layer.
func (j *job) build(m *meter, set *fixtures.Set) error {
	list, err := images(set, "web")
	if err != nil {
		return err
	}
	st, err := j.open("build")
	if err != nil {
		return err
	}
	if err := st.put(list[0], ""); err != nil {
		return err
	}
	err = m.row("build in 20 steps", func() error {
		image := imageID(list[0], "")
		for n := range buildSteps {
			if image, err = st.step(image, n); err != nil {
				return fmt.Errorf("step %d: %w", n, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = st.Shutdown(true)
	return err
}

// step runs what stands for a command in a container of an image, and commits it.
func (s *stored) step(image string, n int) (string, error) {
	c, err := s.CreateContainer("", nil, image, "", "", &storage.ContainerOptions{Volatile: true}) // as all of buildah's
	if err != nil {
		return "", err
	}
	root, err := s.Mount(c.ID, "")
	if err != nil {
		return "", err
	}
	if err := work(root, n); err != nil {
		return "", err
	}
	if _, err := s.Unmount(c.ID, false); err != nil {
		return "", err
	}
	parent, err := s.Layer(c.LayerID)
	if err != nil {
		return "", err
	}
	blob, err := s.blob(c.LayerID)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	layer, _, err := s.PutLayer("", parent.Parent, nil, "", false, nil, blob)
	if err != nil {
		return "", err
	}
	next, err := s.CreateImage("", nil, layer.ID, "", nil)
	if err != nil {
		return "", err
	}
	return next.ID, s.DeleteContainer(c.ID)
}

// blob writes the difference of a layer to a file, as buildah does: a reader of it keeps the store locked.
func (s *stored) blob(layer string) (f *os.File, err error) {
	diff, err := s.Diff("", layer, &storage.DiffOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, diff.Close()) }()
	if f, err = os.CreateTemp(filepath.Dir(s.GraphRoot()), "blob-"); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return f, err
	}
	if _, err := io.Copy(f, diff); err != nil {
		return f, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// work writes files of several sizes, changes one of the image and removes one of the step before.
func work(root string, n int) error {
	dir := filepath.Join(root, "opt", fmt.Sprintf("step%02d", n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	body := make([]byte, 256<<10)
	for i := range body {
		body[i] = byte(i*31 + n)
	}
	for i := range stepFiles {
		size := 512 << (i % 10)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%03d", i)), append(body[:size:size], fmt.Sprint(n, i)...), 0o644); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(root, "etc", "profile"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, "# step", n); err != nil {
		return err
	}
	if err := f.Close(); err != nil || n == 0 {
		return err
	}
	return os.Remove(filepath.Join(root, "opt", fmt.Sprintf("step%02d", n-1), "file000"))
}
