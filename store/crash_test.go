package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// golden compares a trace with the one in testdata.
func golden(t *testing.T, name string, log []string) {
	t.Helper()
	// The order in which a directory's content is removed is the filesystem's own: what goes comes deepest first.
	removed := func(line string) string {
		verb, path, _ := strings.Cut(line, " ")
		if verb != "remove" && verb != "rmdir" {
			return ""
		}
		return path
	}
	// Objects, a directory that is removed, and lanes come one after the other, though.
	kind := func(path string) string {
		path = strings.TrimPrefix(strings.TrimPrefix(path, "repo/"), "extensions/ostree-storage/")
		kind, _, _ := strings.Cut(path, "/")
		return kind
	}
	for i := 0; i < len(log); i++ {
		j := i
		for j < len(log) && removed(log[j]) != "" && kind(removed(log[j])) == kind(removed(log[i])) {
			j++
		}
		slices.SortStableFunc(log[i:j], func(a, b string) int { return strings.Compare(removed(b), removed(a)) })
		i = max(i, j-1)
	}
	testfs.Golden(t, name, log)
}

// TestTraces holds the order of operations: a sync that is lost, or a name that comes too early, is a diff.
func TestTraces(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	if err := w.apply("base", StageOptions{}, baseFiles...); err != nil {
		t.Fatal(err)
	}
	record := func(name string, f func() error) {
		d := &faulty{}
		w.on(d)
		if err := f(); err != nil {
			t.Fatal(err)
		}
		w.on(kernel{})
		golden(t, name, d.log)
	}
	record("publish", func() error { return w.apply("next", StageOptions{}, nextFiles...) })
	time.Sleep(2 * settledSince) // younger directories are looked at again
	record("publish-known", func() error { return w.apply("again", StageOptions{}, baseFiles...) })
	record("publish-nosync", func() error {
		return w.apply("nosync", StageOptions{NoSync: true}, testFile{name: "x", body: "unsynced"})
	})
	record("sync", func() error { return w.repo.Sync() })
	record("set-ref", func() error {
		c, err := w.repo.Ref("layer/base")
		return errors.Join(err, w.repo.SetRef("mine/base", c))
	})
	record("delete-ref", func() error { return w.repo.DeleteRef("mine/base") })
	record("remove", func() error { return w.reap("next") })
	record("recover-nothing", func() error { _, err := w.repo.Recover(context.Background()); return err })
	w.check("after all")
}

// cutEach runs act on a fresh world once for every operation that it makes, with the power gone at that operation, and
// then lets after look at what the next process finds.
func cutEach(t *testing.T, top string, prepare, act func(*world) error, after func(t *testing.T, w *world, n int, done bool)) {
	for n := 1; ; n++ {
		done := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, top)
			if err := prepare(w); err != nil {
				t.Fatal(err)
			}
			d := &faulty{cut: n, err: errCut}
			w.on(d)
			err := act(w)
			done = d.n < n
			if done != (err == nil) && !errors.Is(err, errCut) {
				t.Fatalf("cut at %d of %d: %v", n, d.n, err)
			}
			w.reopen()
			w.check("after the cut")
			after(t, w, n, done)
			w.check("at the end")
		})
		if done || t.Failed() {
			return
		}
	}
}

func TestCutPublish(t *testing.T) {
	prepare := func(w *world) error { return w.apply("base", StageOptions{}, baseFiles...) }
	act := func(w *world) error { return w.apply("next", StageOptions{}, nextFiles...) }
	top := testfs.Mount(t, "ext4")
	clean := newWorld(t, top)
	if err := errors.Join(prepare(clean), act(clean)); err != nil {
		t.Fatal(err)
	}
	wantObjects, wantLanes := clean.count()
	cutEach(t, top, prepare, act, func(t *testing.T, w *world, n int, done bool) {
		if _, err := w.repo.Ref("layer/base"); err != nil {
			t.Errorf("the old layer: %v", err)
		}
		_, err := w.repo.Ref("layer/next")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the new layer: %v", err)
		}
		if err != nil {
			w.drop("next")
			if objects, lanes := w.count(); objects != 5 || lanes != 1 {
				t.Errorf("%d objects and %d lanes are left of a layer that was not stored", objects, lanes)
			}
			if err := w.apply("next", StageOptions{}, nextFiles...); err != nil {
				t.Fatalf("apply again: %v", err)
			}
		}
		if objects, lanes := w.count(); objects != wantObjects || lanes != wantLanes {
			t.Errorf("%d objects and %d lanes, want %d and %d", objects, lanes, wantObjects, wantLanes)
		}
	})
}

func TestCutRemove(t *testing.T) {
	prepare := func(w *world) error {
		return errors.Join(w.apply("base", StageOptions{}, baseFiles...), w.apply("next", StageOptions{}, nextFiles...))
	}
	top := testfs.Mount(t, "ext4")
	clean := newWorld(t, top)
	if err := clean.apply("base", StageOptions{}, baseFiles...); err != nil {
		t.Fatal(err)
	}
	wantObjects, wantLanes := clean.count()
	after := func(t *testing.T, w *world, n int, done bool) {
		if _, err := w.repo.Ref("layer/base"); err != nil {
			t.Errorf("the other layer: %v", err)
		}
		_, refErr := w.repo.Ref("layer/next")
		_, dirErr := os.Lstat(w.home + "/next")
		if (refErr == nil) != (dirErr == nil) {
			t.Errorf("half a layer: ref %v, directory %v", refErr, dirErr)
		}
		if refErr == nil {
			if err := w.reap("next"); err != nil {
				t.Fatalf("remove again: %v", err)
			}
		}
		if objects, lanes := w.count(); objects != wantObjects || lanes != wantLanes {
			t.Errorf("%d objects and %d lanes, want %d and %d", objects, lanes, wantObjects, wantLanes)
		}
	}
	cutEach(t, top, prepare, func(w *world) error { return w.reap("next") }, after)
}

// TestCutRecover cuts the recovery of a removal and of a stage that were cut themselves.
func TestCutRecover(t *testing.T) {
	prepare := func(w *world) error {
		err := errors.Join(w.apply("base", StageOptions{}, baseFiles...), w.apply("next", StageOptions{}, nextFiles...))
		w.on(&faulty{cut: 12, err: errCut})
		if w.reap("next") == nil {
			return errors.New("not cut")
		}
		w.on(&faulty{cut: 22, err: errCut})
		if w.apply("third", StageOptions{}, testFile{name: "g", body: "third"}) == nil {
			return errors.New("not cut")
		}
		w.on(kernel{})
		return err
	}
	top := testfs.Mount(t, "ext4")
	act := func(w *world) error { _, err := w.repo.Recover(context.Background()); return err }
	cutEach(t, top, prepare, act, func(t *testing.T, w *world, n int, done bool) {
		if _, err := os.Lstat(w.home + "/next"); err == nil {
			t.Error("the removal was not finished")
		}
		refs, err := w.repo.Refs("")
		if len(refs) != 1 || err != nil {
			t.Errorf("refs %v, %v", refs, err)
		}
	})
}

// TestB11Faults lets each operation fail once, or for ever, as a full or broken disk does. Nothing may be half done.
func TestB11Faults(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	for _, errno := range faults {
		for _, times := range []int{1, 0} {
			t.Run(fmt.Sprintf("%v/%d", unix.ErrnoName(errno), times), func(t *testing.T) { faultEach(t, top, errno, times) })
		}
	}
}

func faultEach(t *testing.T, top string, errno unix.Errno, times int) {
	w := newWorld(t, top)
	if err := w.apply("base", StageOptions{}, baseFiles...); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		d := &faulty{cut: n, times: times, err: errno}
		w.on(d)
		err := w.apply("next", StageOptions{}, nextFiles...)
		if err == nil && d.n < n {
			w.on(kernel{})
			return
		}
		if err != nil && !errors.Is(err, errno) {
			t.Errorf("operation %d (%s): %v", n, d.log[n-1], err)
		}
		w.on(kernel{})
		w.reopen()
		w.check(fmt.Sprintf("operation %d (%s)", n, d.log[n-1]))
		if _, err := w.repo.Ref("layer/next"); err == nil {
			if err := w.reap("next"); err != nil {
				t.Fatal(err)
			}
		}
		w.drop("next")
		if objects, lanes := w.count(); objects != 5 || lanes != 1 {
			t.Errorf("operation %d (%s): %d objects and %d lanes are left", n, d.log[n-1], objects, lanes)
		}
		if t.Failed() {
			return
		}
	}
}
