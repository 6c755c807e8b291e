package layers_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// settled is how long a directory has to be as it is for a ledger to keep what is in it, and more.
const settled = 100 * time.Millisecond

// A ledgerWorld is a home with some layers that share files, times, lanes and nothing.
type ledgerWorld struct {
	*testing.T
	c   *layers.Catalog
	ids []string
}

func newLedgerWorld(t *testing.T) *ledgerWorld {
	c, err := layers.OpenCatalog(testfs.Mount(t, "ext4")+"/home", layers.Options{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	w := &ledgerWorld{T: t, c: c}
	for i := range 6 {
		parent := ""
		if i%3 > 0 {
			parent = w.ids[i-1]
		}
		id := fmt.Sprintf("layer_%d", i)
		apply(t, c, id, parent, ledgerTar(t, i))
		w.ids = append(w.ids, id)
	}
	time.Sleep(settled)
	return w
}

// ledgerTar has files of all kinds: the layer's own, shared by pairs, equal ones of one layer, which are lanes, private and linked ones.
func ledgerTar(t *testing.T, i int) []byte {
	own, pair := fmt.Sprintf("own %d", i), fmt.Sprintf("pair %d", i/2)
	items := []item{dir("usr/", 0o755), file("usr/own", own), file("usr/pair", pair), file("usr/twice", pair), file("usr/same", "all have it"),
		file("etc/private", own), file("etc/.wh.gone", "")}
	if i == 0 { // the object of a whiteout is one of a file there, and of none elsewhere
		items = append(items, file("usr/empty", ""))
	}
	return makeTar(t, items...)
}

func (w *ledgerWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.c.Home()}, parts...)...)
}

func (w *ledgerWorld) file() string { return w.path("repo/extensions/ostree-storage/ledger") }

// ask says what goes with all layers, with each, and with pairs.
func (w *ledgerWorld) ask(useFile, save bool) ([]store.Frees, error) {
	l := layers.OpenLedger(w.c, useFile)
	if save { // as well as not, the answers are the same
		l.LookAhead()
	}
	if err := l.LookAtCommits(context.Background(), w.ids, true); err != nil {
		return nil, err
	}
	sets := [][]int32{nil}
	for i, id := range w.ids {
		at, _ := l.At(id)
		if at == store.NoPlace {
			continue
		}
		sets[0] = append(sets[0], at)
		sets = append(sets, []int32{at})
		if before, _ := l.At(w.ids[max(i-1, 0)]); before != store.NoPlace && before != at {
			sets = append(sets, []int32{before, at})
		}
	}
	each, err := l.Frees(context.Background(), sets...)
	if err == nil && save {
		err = l.Save(true)
	}
	return each, err
}

// same compares what is said with the ledger's file and without it, and keeps the file up to date if that is wanted.
func (w *ledgerWorld) same(what string, save bool) store.Frees {
	w.Helper()
	with, err := w.ask(true, save)
	must(w, err)
	without, err := w.ask(false, false)
	must(w, err)
	if !slices.Equal(with, without) {
		w.Errorf("%s: with the ledger's file\n%+v, without\n%+v", what, with, without)
	}
	return without[0]
}

// TestLedgerAgrees: whatever happens to a store, what a ledger from before says is what is there.
func TestLedgerAgrees(t *testing.T) {
	w := newLedgerWorld(t)
	before := w.same("no file", true)
	if before.Data == 0 || before.Lanes == 0 || before.Private == 0 || before.Metadata == 0 {
		t.Fatalf("the layers lack something: %+v", before)
	}
	w.same("a file", true)
	l, err := w.c.Layer(w.ids[1])
	must(t, err)
	links := map[string]string{
		"a file object": w.objectOf("own 1"), "a private file": l.TreeDir() + "/etc/private", "a lane": w.anyLane(),
		"a commit": w.path("repo/objects", object.Name{Checksum: l.Commit, Type: object.TypeCommit}.LoosePath()),
	}
	for what, path := range links {
		other := w.path(".elsewhere")
		must(t, os.Link(path, other))
		if got := w.same("somebody links "+what, false); got.Sum() >= before.Sum() {
			t.Errorf("somebody links %s: %+v would go, %+v before", what, got, before)
		}
		must(t, os.Remove(other))
		w.same("nobody links "+what, false)
	}
	must(t, os.WriteFile(l.DiffDir()+"/written", make([]byte, 100_000), 0o600))
	if got := w.same("a layer was written to", false); got.Private < before.Private+100_000 {
		t.Errorf("%+v would go, %+v before it was written to", got, before)
	}
	must(t, os.Remove(l.DiffDir()+"/written"))
	must(t, os.MkdirAll(l.Dir()+"/mapped/x", 0o700))
	w.same("a layer has copies with other owners", false)
	must(t, os.RemoveAll(l.Dir()+"/mapped"))
	w.same("and has none", false)
}

// TestLedgerAfterChanges: the same of what our own programs and older ones of ostree do.
func TestLedgerAfterChanges(t *testing.T) {
	w := newLedgerWorld(t)
	w.same("no file", true)
	l, err := w.c.Layer(w.ids[1])
	must(t, err)

	must(t, os.Link(l.TreeDir()+"/usr/own", w.path(".elsewhere"))) // as many links as before
	must(t, os.Remove(l.TreeDir()+"/usr/own"))
	done, err := w.c.Repair(context.Background(), l.ID, layers.RepairOptions{})
	must(t, err)
	if len(done) == 0 {
		t.Error("nothing was repaired")
	}
	w.same("a tree was repaired", false)

	object := w.objectOf("own 2")
	st := stat(t, object)
	must(t, os.WriteFile(object+".new", []byte("own 2"), 0o644))
	must(t, os.Chtimes(object+".new", time.Time{}, time.Unix(0, 0)))
	must(t, os.Rename(object+".new", object))
	if stat(t, object).Ino == st.Ino {
		t.Fatal("the object has its inode still")
	}
	w.same("an object has another inode", true)
	w.same("that is known", true)

	removed := w.ids[5]
	remove, err := w.c.Remove(removed)
	must(t, err)
	must(t, remove())
	w.same("a layer is gone", false)
	apply(t, w.c, removed, w.ids[4], ledgerTar(t, 50))
	w.same("another layer has its id", true)
	time.Sleep(settled)
	w.same("for some time now", true)
	remove, err = w.c.Remove(removed)
	must(t, err)
	must(t, remove())
	_, err = w.c.Create(removed, w.ids[4], layers.CreateOptions{ReadWrite: true})
	must(t, err)
	w.same("a container has its id", true)
	must(t, os.RemoveAll(w.path("repo/extensions/ostree-storage/index")))
	w.same("no index", true)
}

// TestLedgerIsUsed: what a ledger knows is not read again.
func TestLedgerIsUsed(t *testing.T) {
	w := newLedgerWorld(t)
	want := w.same("no file", true)
	l, err := w.c.Layer(w.ids[0])
	must(t, err)
	tree := w.anyObject(".dirtree")
	b, err := os.ReadFile(tree)
	must(t, err)
	must(t, os.WriteFile(tree, make([]byte, len(b)), 0o600))
	if _, err := w.ask(false, false); err == nil {
		t.Error("a damaged dirtree was read without an error")
	}
	if got, err := w.ask(true, false); err != nil || got[0] != want {
		t.Errorf("with the ledger %+v, %v, want %+v", got, err, want)
	}
	must(t, os.Chtimes(l.Dir(), time.Time{}, time.Now())) // who changes trees touches the directory
	must(t, os.WriteFile(tree, b, 0o600))
	w.same("a layer's directory was touched", true)
}

// TestLedgerOfOtherLayers asks about some of the layers that the ledger's file knows, as du does when a layer goes from the records while it
// looks, or has lost its record by a power cut.
func TestLedgerOfOtherLayers(t *testing.T) {
	w := newLedgerWorld(t)
	w.same("all", true)
	for n := range w.ids {
		l := layers.OpenLedger(w.c, true)
		l.LookAhead()
		must(t, l.LookAtCommits(context.Background(), w.ids[n:n+1], true))
		at, recorded := l.At(w.ids[n])
		if !recorded {
			t.Fatalf("%s has no record", w.ids[n])
		}
		with, err := l.Frees(context.Background(), []int32{at})
		must(t, err)
		must(t, l.Wait())
		l = layers.OpenLedger(w.c, false)
		must(t, l.LookAtCommits(context.Background(), w.ids[n:n+1], true))
		at, _ = l.At(w.ids[n])
		without, err := l.Frees(context.Background(), []int32{at})
		must(t, err)
		if !slices.Equal(with, without) {
			t.Errorf("%s alone: with the ledger's file\n%+v, without\n%+v", w.ids[n], with, without)
		}
	}
}

// TestLedgerFile: what is no ledger is none, and those that two write at once are one of them.
func TestLedgerFile(t *testing.T) {
	w := newLedgerWorld(t)
	want := w.same("no file", true)
	good, err := os.ReadFile(w.file())
	must(t, err)
	for what, b := range map[string][]byte{"empty": {}, "cut": good[:len(good)/2], "long": append(slices.Clone(good), 0), "zeros": make([]byte, len(good))} {
		must(t, os.WriteFile(w.file(), b, 0o600))
		if got := w.same(what, true); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		if again, err := os.ReadFile(w.file()); err != nil || !slices.Equal(again, good) {
			t.Errorf("%s: the file was not written again: %v", what, err)
		}
	}
	must(t, os.WriteFile(w.file()+".new", good[:7], 0o600)) // what a crash left
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := w.ask(false, true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if again, err := os.ReadFile(w.file()); err != nil || !slices.Equal(again, good) {
		t.Errorf("the file was not written, or torn: %v", err)
	}
	if _, err := os.Stat(w.file() + ".new"); !os.IsNotExist(err) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	must(t, os.Remove(w.file()))
	must(t, os.Mkdir(w.file(), 0o700))
	w.same("a directory in its place", false)
}

// TestLedgerIsChecked: a check finds what a ledger says wrongly, and nothing while it is right; a repair removes it.
func TestLedgerIsChecked(t *testing.T) {
	w := newLedgerWorld(t)
	w.same("no file", true)
	check := func() (found []string) {
		must(t, w.c.Check(context.Background(), layers.CheckOptions{}, func(f layers.Fault) { found = append(found, f.String()) }))
		return found
	}
	if found := check(); found != nil {
		t.Errorf("of a good store: %v", found)
	}
	same := w.objectOf("own 1")
	must(t, os.Rename(same, same+".old"))
	must(t, os.WriteFile(same, []byte("own 1"), 0o644))
	if found := check(); found != nil {
		t.Errorf("of an account that nobody would use: %v", found)
	}
	must(t, os.Rename(same+".old", same))
	b, err := os.ReadFile(w.file())
	must(t, err)
	at := bytes.Index(b, []byte("tree/etc/private")) - 2
	b[at]-- // how many names it has; more than it has links would not be used
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[32:], crc32.MakeTable(crc32.Castagnoli)))
	must(t, os.WriteFile(w.file(), b, 0o600))
	if found := check(); len(found) != 1 || !strings.Contains(found[0], "ledger") {
		t.Errorf("found %v", found)
	}
	for _, id := range w.ids {
		_, err := w.c.Repair(context.Background(), id, layers.RepairOptions{})
		must(t, err)
	}
	if _, err := os.Stat(w.file()); !os.IsNotExist(err) {
		t.Errorf("the ledger is still there: %v", err)
	}
}

// objectOf is the path of a file object, by its content.
func (w *ledgerWorld) objectOf(text string) string {
	w.Helper()
	h := object.FileHeader{Mode: unix.S_IFREG | 0o644}
	sum, err := h.Checksum([]byte(text))
	must(w, err)
	return w.path("repo/objects", object.Name{Checksum: sum, Type: object.TypeFile}.LoosePath())
}

func (w *ledgerWorld) anyObject(ext string) string { return w.any("repo/objects/*/*" + ext) }

func (w *ledgerWorld) anyLane() string { return w.any("repo/extensions/ostree-storage/lanes/*/*") }

func (w *ledgerWorld) any(pattern string) string {
	w.Helper()
	list, err := filepath.Glob(w.path(pattern))
	must(w, err)
	if len(list) == 0 {
		w.Fatalf("nothing is called %s", pattern)
	}
	return list[0]
}

func stat(t *testing.T, path string) *unix.Stat_t {
	t.Helper()
	st := new(unix.Stat_t)
	must(t, unix.Lstat(path, st))
	return st
}
