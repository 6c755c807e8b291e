package layers_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// What waits for the disk only once, in the end, dies just before that, and so does the machine, when the filesystem has written its
// journal, with all names, for another file, and not the bytes of files that are not synced. The next open works, no removal is stopped
// by what is left, that goes, and the same can be done again.
func TestPowerCutBeforeSync(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs"} {
		for _, ch := range changes(t) {
			if ch.name == "nosync" || ch.name == "clone" {
				t.Run(kind+"/"+ch.name, func(t *testing.T) { cutBeforeSync(t, testfs.Mount(t, kind), ch) })
			}
		}
	}
}

func cutBeforeSync(t *testing.T, top string, ch change) {
	prepare := func(home string) {
		must(t, within(home, func(c *layers.Catalog) error {
			_, err := tryApply(c, "base", "", baseTar(t))
			if err == nil {
				_, err = tryApply(c, "other", "", makeTar(t, file("other", "layer")))
			}
			return err
		}))
		ch.prepare(t, home)
	}
	first, home := filepath.Join(top, "first"), filepath.Join(top, "home")
	prepare(first)
	prepare(home)
	calls := changeIn(t, first, ch.name, testfs.Trouble{}).Calls
	at := len(calls)
	for at > 0 && !strings.HasPrefix(calls[at-1], "syncfs") {
		at--
	}
	dieIn(t, home, ch.name, at)
	f, err := os.Create(filepath.Join(top, "another"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, testfs.Shutdown(top))
	must(t, testfs.Remount(top))
	refs, err := filepath.Glob(home + "/repo/refs/heads/*/*")
	if must(t, err); len(refs) < 3 {
		t.Fatalf("the names did not survive, only %q: nothing is torn", refs)
	}
	// The next boot has another id.
	notes, err := filepath.Glob(home + "/repo/extensions/ostree-storage/unsynced/*")
	must(t, err)
	for _, note := range notes {
		must(t, os.Rename(note, filepath.Join(filepath.Dir(note), "0f0f0f0f-0000-4000-8000-000000000000"+note[strings.LastIndex(note, "-"):])))
	}

	c := openCatalog(t, home, layers.Options{})
	removeAll(t, c, "other")
	_, err = c.Repo().Prune(context.Background(), false)
	must(t, err)
	ids, err := c.IDs()
	must(t, err)
	if slices.Contains(ids, "next") { // not known to containers/storage, which removes it
		removeAll(t, c, "next")
	}
	sound(t, c)
	ch.again(t, c)
	sound(t, c)
	removeAll(t, c, "next")
	sound(t, c)
}
