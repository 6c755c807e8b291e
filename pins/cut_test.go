package pins_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/pins"
)

// What is done to a pinned store that keeps image one: image two comes or goes.
var pinChanges = map[string]func(*pins.Store) error{
	"pin": func(s *pins.Store) error {
		_, err := s.Pin(context.Background(), pins.Request{Image: two, Name: "new"})
		return err
	},
	"unpin": func(s *pins.Store) error { _, err := s.Unpin("new", false); return err },
	"replace": func(s *pins.Store) error {
		_, err := s.Pin(context.Background(), pins.Request{Image: third, Replace: "new"})
		return err
	},
	"gc": func(s *pins.Store) error { _, err := s.Collect(false); return err },
}

const third = "3333333333333333333333333333333333333333333333333333333333333333"

// TestCutPins stops a process at every call with which it changes the pinned store, or lets these calls fail, in all that is done to
// pins: their layers, records and the table, whoever's code does it. Pins that were there stay whole, the new one is there or not, and
// the same can be done again. Without SOAK some of the calls, others each time.
func TestCutPins(t *testing.T) {
	if text := os.Getenv("PINS_CUT"); text != "" {
		dir, name, _ := strings.Cut(text, "\n")
		cutChild(worldIn(t, dir), name)
		return
	}
	top := testfs.Mount(t, "ext4")
	for _, name := range []string{"pin", "unpin", "replace", "gc"} {
		t.Run(name, func(t *testing.T) {
			n := 0
			testfs.Sweep(t, name, 3, func(trouble testfs.Trouble) testfs.Outcome {
				n++
				return cutPin(t, filepath.Join(top, fmt.Sprint(name, n)), name, trouble)
			})
		})
	}
}

// cutChild is the process that is stopped.
func cutChild(w *world, name string) {
	if err := testfs.MeetTrouble(); err != nil {
		w.t.Fatal(err)
	}
	s, err := pins.Open(w.options(), true)
	if err == nil {
		err = errors.Join(pinChanges[name](s), s.Close())
	}
	testfs.EndMet(err)
	if err != nil {
		w.t.Fatal(err)
	}
}

// cutPin makes one change with trouble, and looks at what the next process finds.
func cutPin(t *testing.T, dir, name string, trouble testfs.Trouble) testfs.Outcome {
	w := worldIn(t, dir)
	base := layer(t, "base", 3)
	w.put(one, []string{"localhost/one:1"}, base)
	w.put(two, []string{"localhost/two:1"}, base, layer(t, "two", 2))
	if name == "replace" {
		w.put(third, []string{"localhost/third:1"}, base, layer(t, "third", 2))
	}
	w.inPins(func(s *pins.Store) {
		pin(t, s, pins.Request{Image: one, Name: "keep"})
		if name != "pin" {
			pin(t, s, pins.Request{Image: two, Name: "new"})
		}
	})
	if name == "gc" && w.cutRun("unpin", testfs.Trouble{At: 40}).Done { // what an unpin that died left
		t.Fatal("the unpin was not killed")
	}
	o := w.cutRun(name, trouble)
	w.lookAfterCut(name, o.Done)
	if t.Failed() {
		t.Logf("after %s, %v", name, o)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return o
}

func (w *world) cutRun(name string, trouble testfs.Trouble) testfs.Outcome {
	trouble.Below = w.pinned()
	// containers/storage panics if it cannot open a lock that it has.
	trouble.Except = func(call string) bool { return strings.HasPrefix(call, "create ") && strings.HasSuffix(call, ".lock") }
	return trouble.RunTest(w.t, "TestCutPins", "PINS_CUT="+w.dir+"\n"+name)
}

// lookAfterCut wants the old state or the new one, does the change again, and wants the new one.
func (w *world) lookAfterCut(name string, done bool) {
	w.t.Helper()
	look := func(s *pins.Store, done bool) {
		list, err := s.List()
		if err != nil {
			w.t.Fatal(err)
		}
		found := map[string]string{}
		for _, p := range list {
			if p.Missing {
				w.t.Errorf("of pin %q the image is missing", p.Name)
			}
			found[p.Name] = p.Image
		}
		want := map[string][]string{"pin": {"", two}, "unpin": {two, ""}, "replace": {two, third}, "gc": {"", ""}}[name]
		if found["keep"] != one || !slices.Contains(want, found["new"]) || done && found["new"] != want[1] {
			w.t.Errorf("the pins are %v, want one of %q", found, want)
		}
		clean(w.t, s)
	}
	w.inPins(func(s *pins.Store) {
		look(s, done)
		if err := pinChanges[name](s); err != nil && !(name == "unpin" && errors.Is(err, pins.ErrUnknown)) {
			w.t.Errorf("%s again: %v", name, err)
		}
		look(s, true)
	})
	for _, home := range []string{w.home(), filepath.Join(w.pinned(), "ostree")} {
		w.sound(home)
	}
}
