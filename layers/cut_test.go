package layers_test

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
	"github.com/ostree-storage/ostree-storage/layers"
)

// A change is something that one process does to a home with layer base, and perhaps next on it. It leaves next or not.
type change struct {
	name    string
	prepare func(t *testing.T, home string)
	act     func(home string) error
	again   func(t *testing.T, c *layers.Catalog) // does the same once more, after next was removed; nil: there is nothing to do
}

var nextTar = func(t testing.TB) []byte {
	return makeTar(t, dir("usr/", 0o750), file("usr/x", "1"), file("usr/z", "2"), link("usr/zz", "usr/z"), symlink("usr/l", "z"),
		file("usr/.wh.y", ""), file("etc/conf", "own"), file("var/big", strings.Repeat("b", 70_000)), dir("opq/", 0o755), file("opq/.wh..wh..opq", ""))
}

func baseTar(t testing.TB) []byte {
	return makeTar(t, file("usr/x", "1"), file("usr/y", strings.Repeat("y", 70_000)), file("etc/conf", "base"))
}

// within opens the home for one change, as a process does that does nothing else.
func within(home string, f func(c *layers.Catalog) error) error {
	return withinBy(layers.Options{}, home, f)
}

func withinBy(o layers.Options, home string, f func(c *layers.Catalog) error) error {
	c, err := layers.OpenCatalog(home, o)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

func changes(t *testing.T) []change {
	pull := func(c *layers.Catalog) error { _, err := tryApply(c, "next", "base", nextTar(t)); return err }
	remove := func(c *layers.Catalog) error {
		cleanup, err := c.Remove("next")
		return errors.Join(err, cleanup())
	}
	box := func(c *layers.Catalog) error {
		_, err := c.Create("next", "base", layers.CreateOptions{ReadWrite: true})
		return err
	}
	clone := func(c *layers.Catalog) error {
		from, err := layers.OpenCatalog(c.Home()+"-source", layers.Options{})
		if err != nil {
			return err
		}
		l, err := from.Layer("next")
		if err == nil {
			err = layers.Clone(context.Background(), c, l, layers.CloneOptions{})
		}
		return errors.Join(err, c.Repo().Sync(), from.Close())
	}
	nothing := func(*testing.T, string) {}
	in := func(f func(c *layers.Catalog) error) func(string) error {
		return func(home string) error { return within(home, f) }
	}
	over := func(f func(c *layers.Catalog) error) func(*testing.T, *layers.Catalog) {
		return func(t *testing.T, c *layers.Catalog) { must(t, f(c)) }
	}
	there := func(t *testing.T, home string) { must(t, within(home, pull)) }
	return []change{
		{"pull", nothing, in(pull), over(pull)},
		{"nosync", nothing, func(home string) error { return withinBy(layers.Options{NoSync: true}, home, pull) }, over(pull)},
		{"segment", nothing, func(home string) error { return withinBy(layers.Options{Segment: 1}, home, pull) }, over(pull)},
		{"remove", there, in(remove), nil},
		{"container", nothing, in(box), over(box)},
		{"clone", func(t *testing.T, home string) {
			must(t, within(home+"-source", func(c *layers.Catalog) error {
				_, err := tryApply(c, "base", "", baseTar(t))
				return errors.Join(err, pull(c))
			}))
		}, in(clone), over(clone)},
		{"gc", func(t *testing.T, home string) {
			must(t, within(home, func(c *layers.Catalog) error { // objects that no ref reaches, as foreign tools leave them
				if err := pull(c); err != nil {
					return err
				}
				return errors.Join(os.RemoveAll(home+"/layers/next"), c.Repo().DeleteRef("layer/next"))
			}))
		}, in(func(c *layers.Catalog) error { _, err := c.Repo().Prune(context.Background(), false); return err }), nil},
		{"recovery", func(t *testing.T, home string) {
			dieIn(t, home, "pull", 80)
			dieIn(t, home, "pull", 120)
			must(t, within(home, pull))
			dieIn(t, home, "remove", 9)
		}, in(func(*layers.Catalog) error { return nil }), nil},
	}
}

// dieIn lets a process die in a change at its n-th call.
func dieIn(t *testing.T, home, name string, n int) {
	t.Helper()
	if changeIn(t, home, name, testfs.Trouble{At: n}).Done {
		t.Fatalf("the process was not killed in its %s", name)
	}
}

// changeIn makes a change in a process of its own.
func changeIn(t *testing.T, home, name string, trouble testfs.Trouble) testfs.Outcome {
	t.Helper()
	trouble.Below = home
	return trouble.RunTest(t, "TestChangeProcess", "LAYERS_CHANGE="+name, "LAYERS_HOME="+home)
}

// TestChangeProcess is the process that changeIn starts.
func TestChangeProcess(t *testing.T) {
	name := os.Getenv("LAYERS_CHANGE")
	if name == "" {
		t.Skip("other tests run it, in a process of its own")
	}
	list := changes(t)
	i := slices.IndexFunc(list, func(c change) bool { return c.name == name })
	must(t, testfs.MeetTrouble())
	err := list[i].act(os.Getenv("LAYERS_HOME"))
	testfs.EndMet(err)
	must(t, err)
}

// TestCutChanges stops a process at every call with which it changes the disk, and lets every such call fail as a full or broken
// disk does. What the next process finds is the old state or the new one, without a finding; what is left goes with the layer; and the
// same change can be made again. Without SOAK a few of the calls, others each time.
func TestCutChanges(t *testing.T) {
	needRoot(t)
	top := testfs.Mount(t, "ext4")
	for _, ch := range changes(t) {
		t.Run(ch.name, func(t *testing.T) {
			w := &cut{T: t, top: top, change: ch}
			testfs.Sweep(t, ch.name, 8, w.once)
		})
	}
}

// A cut makes one change again and again, in a home of its own each time.
type cut struct {
	*testing.T
	top string
	change
	n int
}

// once makes the change with the given trouble, and looks at what is left.
func (w *cut) once(trouble testfs.Trouble) testfs.Outcome {
	w.n++
	home := filepath.Join(w.top, fmt.Sprint(w.name, w.n))
	must(w, within(home, func(c *layers.Catalog) error { _, err := tryApply(c, "base", "", baseTar(w)); return err }))
	before := storeFiles(w, home)
	w.prepare(w.T, home)
	o := changeIn(w.T, home, w.name, trouble)
	w.look(home, fmt.Sprintf("%s, %v", w.name, o), o.Done, before)
	return o
}

// look opens the home as the next process does.
func (w *cut) look(home, what string, done bool, before []string) {
	c, err := layers.OpenCatalog(home, layers.Options{})
	if err != nil {
		w.Errorf("%s: %v", what, err)
		return
	}
	defer func() { must(w, c.Close()) }()
	l, err := c.Layer("next")
	if done && (err == nil) != (w.again != nil) {
		w.Errorf("%s: it reported success, and then the layer: %v", what, err)
	}
	ids, err := c.IDs()
	must(w, err)
	if slices.Contains(ids, "next") {
		if l != nil && l.Applied() { // else containers/storage has no record of it, or one that says that it is incomplete
			sound(w, c)
		}
		removeAll(w, c, "next")
	}
	sound(w, c)
	if w.name == "segment" {
		w.segment(c, what)
	}
	if w.name != "clone" { // its source is needed once more
		w.same(c, what, before)
	}
	if w.again != nil {
		w.again(w.T, c)
		sound(w, c)
		removeAll(w, c, "next")
		sound(w, c)
		w.same(c, what+", and once more", before)
	}
	if w.Failed() {
		w.Logf("after %s", what)
	}
	must(w, os.RemoveAll(home))
	must(w, os.RemoveAll(home+"-source"))
}

// segment looks at the segment of base, which goes with base: it is whole, or there is none, as after an error.
func (w *cut) segment(c *layers.Catalog, what string) {
	l, err := c.Layer("base")
	must(w, err)
	if _, err := os.Stat(l.Dir() + "/segment"); err != nil {
		return
	}
	_, err = c.Create("top", "base", layers.CreateOptions{ReadWrite: true})
	must(w, err)
	by := openCatalog(w, c.Home(), layers.Options{Segment: 1})
	dirs, segments := lowersOf(w, by, "top")
	if segments != 1 {
		w.Errorf("%s: the segment does not stand for its layer", what)
	}
	compareTrees(w, describeTree(w, l.TreeDir(), true), describeTree(w, dirs[0], true))
	removeAll(w, c, "top")
	must(w, os.RemoveAll(l.Dir()+"/segment"))
}

// same compares the names in a home with those before. What foreign tools left, and lanes that another home had as well, go with
// the next gc.
func (w *cut) same(c *layers.Catalog, what string, before []string) {
	if w.name == "gc" || w.name == "clone" {
		must(w, os.RemoveAll(c.Home()+"-source"))
		_, err := c.Repo().Prune(context.Background(), false)
		must(w, err)
	}
	must(w, c.Repo().Sync()) // until then notes say what is not synced
	now := storeFiles(w, c.Home())
	for _, p := range now {
		if !slices.Contains(before, p) && !strings.HasSuffix(p, "/unsynced") && !strings.HasSuffix(p, "/turn") {
			w.Errorf("%s: %s was left", what, p)
		}
	}
	for _, p := range before {
		if !slices.Contains(now, p) {
			w.Errorf("%s: %s is gone", what, p)
		}
	}
}
