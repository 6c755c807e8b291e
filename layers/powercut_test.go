package layers_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// The record of a container is whole after a power cut as soon as its directory is there, though nothing waits for the disk when it is
// made: here the filesystem writes its journal for another file, and the bytes of no file that is not synced.
func TestRecordOfContainerAfterPowerCut(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			top := testfs.Mount(t, kind)
			home := filepath.Join(top, "home")
			c, err := layers.OpenCatalog(home, layers.Options{})
			must(t, err)
			beside, err := layers.OpenCatalog(filepath.Join(top, "beside"), layers.Options{})
			must(t, err)
			var chain []string
			for n := range 40 { // of long names: with them a record does not fit into one symlink
				id, parent := fmt.Sprintf("%02d%s", n, strings.Repeat("f", 62)), ""
				if n > 0 {
					parent = chain[0]
				}
				apply(t, c, id, parent, makeTar(t, file("f", fmt.Sprint(n))))
				chain = slices.Insert(chain, 0, id)
			}
			for n, parent := range []string{"", chain[39], chain[20], chain[0]} {
				_, err := c.Create(fmt.Sprint("container", n), parent, layers.CreateOptions{ReadWrite: true})
				must(t, err)
				o := layers.CreateOptions{ReadWrite: true}
				if parent != "" {
					o.Chain, err = layers.Catalogs{c}.Chain(parent)
					must(t, err)
				}
				_, err = beside.Create(fmt.Sprint("container", n), parent, o) // whose record lists all of them
				must(t, err)
			}
			f, err := os.Create(filepath.Join(top, "another"))
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
			must(t, errors.Join(c.Close(), beside.Close()))
			must(t, testfs.Shutdown(top))
			must(t, testfs.Remount(top))

			c = openCatalog(t, home, layers.Options{})
			for _, c := range []*layers.Catalog{c, openCatalog(t, filepath.Join(top, "beside"), layers.Options{})} {
				for n, want := range [][]string{nil, chain[39:], chain[20:], chain} {
					wantContainer(t, c, fmt.Sprint("container", n), want)
				}
			}
			sound(t, c)
		})
	}
}

// wantContainer looks at a container's record, and removes it.
func wantContainer(t *testing.T, c *layers.Catalog, id string, ancestors []string) {
	t.Helper()
	l, err := c.Layer(id)
	if err != nil {
		t.Errorf("after the cut: %v", err)
		return
	}
	if !slices.Equal(l.Ancestors, ancestors) || !l.ReadWrite || l.Applied() || !c.Exists(id) {
		t.Errorf("after the cut %s is %+v, with %d ancestors", id, l, len(ancestors))
	}
	removeAll(t, c, id)
}

// A record without bytes, as an unsynced file may be after a cut, is none.
func TestEmptyRecord(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	l, err := c.Create("torn", "", layers.CreateOptions{ReadWrite: true})
	must(t, err)
	record := filepath.Join(l.Dir(), "record")
	must(t, os.Remove(record))
	must(t, os.WriteFile(record, nil, 0o600))
	if l, err := c.Layer("torn"); err == nil || c.Exists("torn") {
		t.Errorf("%+v", l)
	}
	_, err = c.Create("torn", "", layers.CreateOptions{ReadWrite: true})
	must(t, err)
	removeAll(t, c, "torn")
	sound(t, c)
}
