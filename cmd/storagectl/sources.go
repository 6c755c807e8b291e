package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage/pkg/archive"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// A quarry is where good copies for a repair come from: repositories, and tars that are read into a repository of their own.
type quarry struct {
	a       *app
	dir     string // of the scratch home, "" while there is none
	scratch *layers.Catalog
	staged  []*layers.Staged
	repos   []*store.Repo // opened here
	all     []*store.Repo
}

// openSources opens what --from names. The returned function closes it and removes what was made.
func (a *app) openSources(from []string) ([]*store.Repo, func() error, error) {
	q := &quarry{a: a}
	for _, f := range from {
		if err := q.add(f); err != nil {
			return nil, q.close, advise(fmt.Errorf("read %s: %w", f, err), "storagectl repair --help")
		}
	}
	if q.scratch != nil {
		q.all = append(q.all, q.scratch.Repo())
	}
	return q.all, q.close, nil
}

func (q *quarry) close() error {
	var errs []error
	for _, s := range q.staged {
		errs = append(errs, s.Close())
	}
	if q.scratch != nil {
		errs = append(errs, q.scratch.Close())
	}
	for _, r := range q.repos {
		errs = append(errs, r.Close())
	}
	if q.dir != "" {
		errs = append(errs, os.RemoveAll(q.dir))
	}
	return errors.Join(errs...)
}

// add opens one source, whatever it is.
func (q *quarry) add(from string) error {
	is := func(parts ...string) bool {
		_, err := os.Stat(filepath.Join(append([]string{from}, parts...)...))
		return err == nil
	}
	switch {
	case is("objects"):
		return q.repo(from)
	case is(driverName, "repo", "objects"):
		return q.repo(filepath.Join(from, driverName, "repo"))
	case is("index.json"):
		return q.oci(from)
	case is():
		return q.tar(from)
	}
	if err := q.open(); err != nil {
		return err
	}
	dir := filepath.Join(q.dir, "image")
	t := &transfer{quiet: true}
	if err := q.a.copyImage(t, from, "oci:"+dir+":x"); err != nil {
		return err
	}
	return q.oci(dir)
}

func (q *quarry) repo(path string) error {
	r, err := store.Open(path)
	if err == nil {
		q.repos = append(q.repos, r)
		q.all = append(q.all, r)
	}
	return err
}

// open makes the scratch home. Its objects have the same label, or their checksums would differ.
func (q *quarry) open() (err error) {
	if q.scratch != nil {
		return nil
	}
	if q.dir, err = os.MkdirTemp("", "storagectl-repair-"); err != nil {
		return err
	}
	o := layers.Options{NoSync: true, Label: q.a.homes[0].Repo().Label()}
	q.scratch, err = layers.OpenCatalog(filepath.Join(q.dir, "home"), o)
	return err
}

// tar reads a layer tar into the scratch home.
func (q *quarry) tar(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return q.stage(f)
}

func (q *quarry) stage(r io.Reader) error {
	if err := q.open(); err != nil {
		return err
	}
	plain, err := archive.DecompressStream(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	s, err := q.scratch.Stage(context.Background(), plain, layers.StageOptions{})
	if errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("neither a repository, an OCI directory nor a layer tar: %w", err)
	}
	if err == nil {
		q.staged = append(q.staged, s)
	}
	return err
}

// oci reads all layers of all images of an OCI directory.
func (q *quarry) oci(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return err
	}
	return q.index(dir, b)
}

func (q *quarry) index(dir string, b []byte) error {
	var x imgspec.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	for _, d := range x.Manifests {
		b, err := os.ReadFile(blob(dir, d.Digest))
		if errors.Is(err, os.ErrNotExist) {
			continue // of another architecture
		}
		if err != nil {
			return err
		}
		var m imgspec.Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return err
		}
		if len(m.Layers) == 0 {
			if err := q.index(dir, b); err != nil {
				return err
			}
		}
		for _, l := range m.Layers {
			if err := q.blob(dir, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *quarry) blob(dir string, l imgspec.Descriptor) error {
	if !strings.Contains(l.MediaType, "tar") {
		return nil // an artifact's
	}
	return q.tar(blob(dir, l.Digest))
}

// blob is where an OCI directory keeps a blob.
func blob(dir string, d digest.Digest) string {
	if d.Validate() != nil {
		return filepath.Join(dir, "no such blob")
	}
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}
