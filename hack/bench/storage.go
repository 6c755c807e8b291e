package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// storage goes through containers/storage's public API, as podman does.
func (j *job) storage(m *meter, set *fixtures.Set) error {
	list, err := images(set, "full", "node", "web", "update-old", "update-new")
	if err != nil {
		return err
	}
	full, node, web, before, update := list[0], list[1], list[2], list[3], list[4]
	st, err := j.open("storage")
	if err != nil {
		return err
	}
	if err := st.steps(m, []step{
		{"put an image into an empty store", func() error { return st.put(full, "") }},
		{firstMount, func() error { return st.container(full, "first") }},
		{"", func() error { return st.put(node, "") }},
		{"put an image that is mostly known", func() error { return st.put(web, "") }},
		{"the same, digests known as in a pull", func() error { return st.pull(web, "pulled") }},
		{"", func() error { return st.put(before, "") }},
		{"put its security update", func() error { return st.put(update, "") }},
		{"delete the update, half of which is shared", func() error { return st.remove(update, "") }},
	}); err != nil {
		return err
	}
	if j.Driver != upstreamOnly {
		err := m.repeated("create, mount, unmount, delete a container", 3, 30, func(i int) error {
			return st.container(full, fmt.Sprint(i))
		})
		if err != nil {
			return err
		}
	}
	if err := st.steps(m, []step{
		{"", func() error { return st.remove(web, "pulled") }},
		{"", func() error { return st.remove(web, "") }},
		{"", func() error { return st.remove(before, "") }},
		{"", func() error { return st.remove(node, "") }},
		{"delete the image that is left", func() error { return st.remove(full, "") }},
	}); err != nil {
		return err
	}
	_, err = st.Shutdown(true)
	return err
}

// A step is measured if it has a row.
type step struct {
	row string
	do  func() error
}

const firstMount = "first create, mount, unmount, delete after the put"

func (s *stored) steps(m *meter, list []step) (err error) {
	for _, step := range list {
		switch {
		case step.row == firstMount && s.GraphDriverName() == upstreamOnly: // there is nothing in its layers
		case step.row == "":
			err = step.do()
		default:
			err = m.row(step.row, step.do)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stored is a store with the fixture images.
type stored struct{ storage.Store }

// layerID gives every layer of every image an id of its own: no image of the
// fixtures is pulled on top of another's layers.
func layerID(i fixtures.Image, n int, variant string) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d %s", i.ID, n, variant)))
}

func imageID(i fixtures.Image, variant string) string {
	return i.ID[:56] + fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(variant)))
}

// put has containers/storage compute the digest of each layer, as for a commit.
func (s *stored) put(i fixtures.Image, variant string) error { return s.add(i, variant, false) }

// pull says what the digests are, as containers/image does when it has fetched an image.
func (s *stored) pull(i fixtures.Image, variant string) error { return s.add(i, variant, true) }

func (s *stored) add(i fixtures.Image, variant string, known bool) error {
	parent := ""
	for n, l := range i.Layers {
		f, err := os.Open(l.Tar)
		if err != nil {
			return err
		}
		var o *storage.LayerOptions
		if known {
			o = &storage.LayerOptions{OriginalDigest: digest.Digest(l.DiffID), UncompressedDigest: digest.Digest(l.DiffID)}
		}
		id := layerID(i, n, variant)
		layer, _, err := s.PutLayer(id, parent, nil, "", false, o, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if string(layer.UncompressedDigest) != l.DiffID {
			return fmt.Errorf("the layer's digest is %s, not %s", layer.UncompressedDigest, l.DiffID)
		}
		parent = id
	}
	_, err := s.CreateImage(imageID(i, variant), []string{i.Ref() + variant}, parent, "", nil)
	return err
}

func (s *stored) remove(i fixtures.Image, variant string) error {
	_, err := s.DeleteImage(imageID(i, variant), true)
	return err
}

func (s *stored) container(i fixtures.Image, name string) error {
	c, err := s.CreateContainer("", []string{name}, imageID(i, ""), "", "", nil)
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
