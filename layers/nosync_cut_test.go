package layers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
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
// by what is left, that goes, and the same can be done again. A pull waits for the bytes of its files before that, and dies at some other
// calls as well, from where these are written: it has no notes of what may be torn, and needs none.
func TestPowerCutBeforeSync(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs"} {
		for _, ch := range changes(t) {
			if ch.name == "nosync" || ch.name == "clone" || ch.name == "pull" {
				t.Run(kind+"/"+ch.name, func(t *testing.T) { cutBeforeSync(t, testfs.Mount(t, kind), ch, 0) })
			}
			for back := 1 + rand.IntN(9); back < 60 && ch.name == "pull"; back += 9 {
				t.Run(fmt.Sprintf("%s/%s/%d", kind, ch.name, back), func(t *testing.T) { cutBeforeSync(t, testfs.Mount(t, kind), ch, back) })
			}
		}
	}
}

// cutBeforeSync has a process die in a change that many calls before its last sync, and the machine.
func cutBeforeSync(t *testing.T, top string, ch change, back int) {
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
	for at > 0 && !strings.HasPrefix(calls[at-1], "syncfs") && !strings.HasPrefix(calls[at-1], "sync ") {
		at--
	}
	t.Logf("dies %d calls before %q", back, calls[at-1])
	dieIn(t, home, ch.name, at-back)
	f, err := os.Create(filepath.Join(top, "another"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, testfs.Shutdown(top))
	must(t, testfs.Remount(top))
	refs, err := filepath.Glob(home + "/repo/refs/heads/*/*")
	if must(t, err); len(refs) < 3 && back == 0 {
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
