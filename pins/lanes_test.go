package pins_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/pins"
)

const three = "3333333333333333333333333333333333333333333333333333333333333333"

// sameFiles is a layer with one content under several names, which are no hardlinks of each other.
func sameFiles(t *testing.T, own string, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, text string) {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1600000000, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	add("usr/own", own)
	for _, name := range names {
		add("usr/"+name, strings.Repeat("the same in all of them\n", 40_000))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// remove removes an image from the main store as podman does, which has the pinned store beside it.
func (w *world) remove(id string) {
	w.t.Helper()
	helper(w.t, "remove", w.main.GraphRoot, w.main.RunRoot, w.pinned(), id, "")
}

func (w *world) unpin(name string) {
	w.t.Helper()
	w.inPins(func(s *pins.Store) {
		if _, err := s.Unpin(name, false); err != nil {
			w.t.Error(err)
		}
	})
}

// lanes counts the lane files of both stores.
func (w *world) lanes() (main, pinned int) {
	w.t.Helper()
	for dir, n := range map[string]*int{w.main.GraphRoot: &main, w.pinned(): &pinned} {
		paths, err := filepath.Glob(filepath.Join(dir, "ostree/repo/extensions/ostree-storage/lanes/*/*"))
		if err != nil {
			w.t.Fatal(err)
		}
		*n = len(paths)
	}
	return main, pinned
}

// free is how many bytes the filesystem has.
func (w *world) free() int64 {
	w.t.Helper()
	d, err := os.Open(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	var st unix.Statfs_t
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		w.t.Fatal(err)
	}
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		w.t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// TestLanesGoWithTheirLayers: a store drops the name of a lane when the last of its own layers goes that used it, though the other
// store has the inode, and whether or not the object stays; and keeps it while a layer uses it. The blocks go with the second store.
func TestLanesGoWithTheirLayers(t *testing.T) {
	const lane = 24 * 40_000
	for name, steps := range map[string][2]func(*world){
		"removed, then unpinned": {func(w *world) { w.remove(one) }, func(w *world) { w.unpin("one") }},
		"unpinned, then removed": {func(w *world) { w.unpin("one") }, func(w *world) { w.remove(one) }},
	} {
		for _, stays := range []bool{false, true} { // the object, for another image has it
			t.Run(name+map[bool]string{true: ", object stays"}[stays], func(t *testing.T) {
				w := newWorld(t)
				w.put(two, []string{"localhost/two"}, sameFiles(t, "two", map[bool][]string{true: {"once"}}[stays]...))
				w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: two, Name: "two"}) })
				w.put(three, []string{"localhost/three"}, sameFiles(t, "three", map[bool][]string{true: {"first", "second"}}[stays]...))
				w.put(one, []string{"localhost/one"}, sameFiles(t, "one", "first", "second"))
				w.inPins(func(s *pins.Store) {
					pin(t, s, pins.Request{Image: one, Name: "one"})
					pin(t, s, pins.Request{Image: three, Name: "three"})
				})
				w.expectLanes("at first", 1, 1)
				w.remove(three) // the lane is the first image's too
				w.unpin("three")
				w.expectLanes("without the third", 1, 1)
				before := w.free()
				steps[0](w)
				if main, pinned := w.lanes(); main+pinned != 1 {
					t.Errorf("after the first step %d and %d lane files", main, pinned)
				}
				middle := w.free()
				steps[1](w)
				w.expectLanes("in the end", 0, 0)
				if first, second := middle-before, w.free()-middle; first > lane/2 || second < lane {
					t.Errorf("the steps freed %d and %d bytes of a lane of %d", first, second, lane)
				}
			})
		}
	}
}

func (w *world) expectLanes(when string, main, pinned int) {
	w.t.Helper()
	if m, p := w.lanes(); m != main || p != pinned {
		w.t.Errorf("%s: %d and %d lane files, want %d and %d", when, m, p, main, pinned)
	}
}
