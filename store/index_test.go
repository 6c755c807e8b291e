package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store/index"
)

// compactAll merges all lists into a run, however few there are.
func compactAll(w *world) error {
	return w.repo.root.withIndex(func(x *index.Index) error {
		c, err := x.Compact(true)
		if c == nil || err != nil {
			return err
		}
		unlock, err := w.repo.root.lockExclusive(context.Background())
		if err != nil {
			return err
		}
		defer unlock()
		return c.Commit()
	})
}

// shelved makes a world whose index has a run, a list in it, a new one, and a dropped one.
func shelved(w *world) error {
	steps := []func() error{
		func() error { return w.apply("gone", StageOptions{}, testFile{name: "g", body: "gone"}) },
		func() error { return w.apply("base", StageOptions{}, baseFiles...) },
		func() error { return compactAll(w) },
		func() error { return w.apply("next", StageOptions{}, nextFiles...) },
		func() error { return w.reap("gone") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestB12Index: what is wrong with the index is found, named, and made good by Prune and by Reindex, which lose nothing.
func TestB12Index(t *testing.T) {
	for name, mend := range map[string]func(*testing.T, *world){
		"prune":   func(t *testing.T, w *world) { _, err := w.repo.Prune(context.Background(), false); must(t, err) },
		"reindex": func(t *testing.T, w *world) { must(t, Reindex(context.Background(), w.repo)) },
	} {
		t.Run(name, func(t *testing.T) { spoilIndex(t, mend) })
	}
}

func spoilIndex(t *testing.T, mend func(*testing.T, *world)) {
	change := func(pattern string, f func([]byte) []byte) func(*world) error {
		return func(w *world) error {
			files, err := filepath.Glob(w.home + "/repo/" + indexDir + "/" + pattern)
			if err != nil || len(files) != 1 {
				return fmt.Errorf("%s: %q, %v", pattern, files, err)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				return err
			}
			return os.WriteFile(files[0], f(b), 0o600)
		}
	}
	bit := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	last := func(b []byte) []byte { b[len(b)-4]++; return b }
	for name, spoil := range map[string]func(*world) error{
		"count of a run":   change("runs/*", last),
		"key of a run":     change("runs/*", bit(16)),
		"magic of a run":   change("runs/*", bit(0)),
		"key of a list":    change("lists/*", bit(16)),
		"key of a new one": change("new/[0-9a-f]*", bit(16)),
		"short list": change("new/[0-9a-f]*", func(b []byte) []byte {
			n := binary.LittleEndian.Uint64(b[8:])
			binary.LittleEndian.PutUint64(b[8:], n-1)
			return b[:len(b)-8]
		}),
		"torn list":   change("new/[0-9a-f]*", func(b []byte) []byte { return b[:len(b)-1] }),
		"manifest":    change("manifest", func([]byte) []byte { return []byte("{") }),
		"no manifest": func(w *world) error { return os.Remove(w.home + "/repo/" + indexDir + "/manifest") },
		"no run": func(w *world) error {
			return os.RemoveAll(w.home + "/repo/" + indexDir + "/runs")
		},
		"list of nothing": func(w *world) error {
			b := index.AppendList(nil, []index.Key{1, 2})
			return os.WriteFile(w.home+"/repo/"+indexDir+"/new/"+strings.Repeat("ab", 32), b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, t.TempDir())
			must(t, shelved(w))
			w.check("before")
			must(t, spoil(w))
			var found []Finding
			must(t, w.repo.Fsck(context.Background(), FsckOptions{}, func(f Finding) { found = append(found, f) }))
			if len(found) == 0 {
				t.Fatal("not found")
			}
			for _, f := range found {
				if f.Kind != Index || !strings.HasPrefix(f.Path, indexDir) {
					t.Errorf("found %s", f)
				}
			}
			mend(t, w)
			w.check("after it was mended")
			must(t, w.reap("next"))
			w.check("after a removal")
			if objects, lanes := w.count(); objects != 5 || lanes != 1 {
				t.Errorf("%d objects and %d lanes are left", objects, lanes)
			}
		})
	}
}

// TestCutCompact cuts a compaction of the index, and a prune that makes it anew.
func TestCutCompact(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	for name, act := range map[string]func(*world) error{
		"compact": compactAll,
		"reindex": func(w *world) error { _, err := w.repo.Prune(context.Background(), false); return err },
	} {
		prepare := func(w *world) error {
			err := shelved(w)
			if err == nil && name == "reindex" {
				err = os.RemoveAll(w.home + "/repo/" + indexDir)
			}
			return err
		}
		t.Run(name, func(t *testing.T) {
			cutEach(t, top, prepare, act, func(t *testing.T, w *world, n int, done bool) {
				for _, id := range []string{"next", "base"} {
					must(t, w.reap(id))
				}
				if objects, lanes := w.count(); objects != 0 || lanes != 0 {
					t.Errorf("%d objects and %d lanes are left", objects, lanes)
				}
			})
		})
	}
}
