package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// limits are what other tools take for parts of the work: no driver that does
// the part can be much faster.
func (j *job) limits(m *meter, set *fixtures.Set) error {
	list, err := images(set, "full")
	if err != nil {
		return err
	}
	full := list[0]
	full.Layers = full.Layers[:len(full.Layers)-1] // the last one has names that ostree refuses
	tree, linked, repo := filepath.Join(j.Dir, "tree"), filepath.Join(j.Dir, "linked"), filepath.Join(j.Dir, "repo")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	rows := []struct {
		name string
		do   func() error
	}{
		{"sha256 of the image, one core", func() error { return hashAll(full, 1) }},
		{"sha256 of the image, all cores", func() error { return hashAll(full, runtime.NumCPU()) }},
		{"tar x of the image", func() error { return extract(full, tree) }},
		{"cp -al of the tree", func() error { return tool("cp", "-al", tree, linked) }},
		{"rm -r of the links", func() error { return os.RemoveAll(linked) }},
		{"ostree commit of the tree", func() error { return ostree(repo, tree) }},
		{"ostree checkout of the commit", func() error {
			return tool("ostree", "--repo="+repo, "checkout", "-H", "image", filepath.Join(j.Dir, "checkout"))
		}},
	}
	for _, row := range rows {
		if err := m.row(row.name, row.do); err != nil {
			return err
		}
	}
	return nil
}

func hashAll(i fixtures.Image, cores int) error {
	var g errgroup.Group
	g.SetLimit(cores)
	for _, l := range i.Layers {
		g.Go(func() error {
			f, err := os.Open(l.Tar)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(sha256.New(), f)
			return err
		})
	}
	return g.Wait()
}

func extract(i fixtures.Image, dir string) error {
	for _, l := range i.Layers {
		if err := tool("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", l.Tar); err != nil {
			return err
		}
	}
	return nil
}

// ostree commits what it can: it has no objects for devices and fifos.
func ostree(repo, tree string) error {
	if err := tool("sh", "-c", `find "$0" ! -type f ! -type d ! -type l -delete`, tree); err != nil {
		return err
	}
	if err := tool("ostree", "--repo="+repo, "init", "--mode=bare"); err != nil {
		return err
	}
	return tool("ostree", "--repo="+repo, "commit", "-b", "image", "--tree=dir="+tree)
}

func tool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out[max(0, len(out)-500):])
	}
	return nil
}
