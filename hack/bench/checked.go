package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// checked compares a full check, every object read and every tree compared with its commit, with sha256 over the same files.
func (j *job) checked(m *meter, set *fixtures.Set) error {
	list, err := images(set, "full", "python")
	if err != nil {
		return err
	}
	st, err := j.open("check")
	if err != nil {
		return err
	}
	for _, i := range list {
		if err := st.put(i, ""); err != nil {
			return err
		}
	}
	home := filepath.Join(st.GraphRoot(), j.Driver)
	if _, err := st.Shutdown(false); err != nil {
		return err
	}
	for range 3 {
		err := errors.Join(
			m.row("sha256 of every object's file, all cores", func() error { return hashFiles(filepath.Join(home, "repo", "objects")) }),
			m.row("full check, hashing every object", func() error { return checkHome(home, true) }),
			m.row("of that, the repository alone", func() error { return checkHome(home, false) }),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func checkHome(home string, trees bool) error {
	c, err := layers.OpenCatalog(home, layers.Options{})
	if err != nil {
		return err
	}
	var faults []string
	finding := func(f store.Finding) { faults = append(faults, fmt.Sprint(f)) }
	if trees {
		err = layers.CheckHome(context.Background(), c, store.FsckOptions{}, layers.CheckOptions{}, finding,
			func(f layers.Fault) { faults = append(faults, f.String()) })
	} else {
		err = c.Repo().Fsck(context.Background(), store.FsckOptions{}, finding)
	}
	if len(faults) > 0 {
		err = errors.Join(err, fmt.Errorf("the check found %d faults: %.200s", len(faults), faults))
	}
	return errors.Join(err, c.Close())
}

// hashFiles reads and hashes every regular file below dir.
func hashFiles(dir string) error {
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		g.Go(func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(sha256.New(), f)
			return err
		})
		return nil
	})
	return errors.Join(err, g.Wait())
}
