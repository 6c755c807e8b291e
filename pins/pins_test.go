package pins_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/pins"
	_ "github.com/ostree-storage/ostree-storage/plugin"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Setenv("OSTREE_DRIVER_CONF", "none")
	os.Exit(m.Run())
}

const one, two = "1111111111111111111111111111111111111111111111111111111111111111", "2222222222222222222222222222222222222222222222222222222222222222"

// Everything that an image has comes along, and outlives the main store.
func TestPinKeepsRecords(t *testing.T) {
	w := newWorld(t)
	base, top := layer(t, "base", 20), layer(t, "top", 5)
	w.put(one, []string{"localhost/os:1", "localhost/os:latest", "raw-name"}, base, top)
	var before storage.Image
	var layers []storage.Layer
	w.inMain(func(s storage.Store) {
		i, err := s.Image(one)
		if err != nil {
			t.Fatal(err)
		}
		before = *i
		if layers, err = s.Layers(); err != nil {
			t.Fatal(err)
		}
	})
	w.inPins(func(s *pins.Store) {
		p := pin(t, s, pins.Request{Image: "os", Reason: "it is the OS"})
		if p.Pin.Name != "localhost/os:1" || p.Layers != 2 || p.Sharing != pins.ByLink {
			t.Errorf("pin gives %+v", p)
		}
		clean(t, s)
	})
	for _, dir := range []string{w.main.GraphRoot, w.main.RunRoot} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	s, err := storage.GetStore(types.StoreOptions{GraphRoot: w.pinned(), RunRoot: w.main.RunRoot, GraphDriverName: "ostree", GraphDriverOptions: []string{"pinned_store=none"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	i, err := s.Image(one)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", record(i)), fmt.Sprintf("%+v", record(&before)); got != want {
		t.Errorf("the record is\n%s\nand was\n%s", got, want)
	}
	for _, was := range layers {
		l, err := s.Layer(was.ID)
		if err != nil {
			t.Fatal(err)
		}
		if l.Parent != was.Parent || l.UncompressedDigest != was.UncompressedDigest || l.UncompressedSize != was.UncompressedSize ||
			l.CompressedDigest != was.CompressedDigest || l.CompressedSize != was.CompressedSize || l.CompressionType != was.CompressionType {
			t.Errorf("the layer is\n%+v\nand was\n%+v", l, was)
		}
		data, err := s.LayerBigData(l.ID, "note")
		if err != nil {
			t.Fatal(err)
		}
		data.Close()
	}
	if _, err := s.Shutdown(true); err != nil {
		t.Error(err)
	}
	w.inPins(func(s *pins.Store) {
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0].Reason != "it is the OS" || list[0].Missing || len(list[0].Names) != 3 {
			t.Errorf("the list is %+v, %v", list, err)
		}
		clean(t, s)
	})
}

// record is what has to be equal of an image's record.
func record(i *storage.Image) storage.Image {
	c := *i
	c.ReadOnly = false
	names := slices.Clone(c.Names)
	slices.Sort(names)
	c.Names = names
	return c
}

// What a pin costs on ext4 are directories and records.
func TestPinCostsNoData(t *testing.T) {
	w := newWorld(t)
	base := layer(t, "base", 500)
	w.put(one, []string{"localhost/os:1"}, base)
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one}) })
	var data, linked int64
	err := filepath.Walk(filepath.Join(w.pinned(), "ostree"), func(path string, fi os.FileInfo, err error) error {
		if err != nil || !fi.Mode().IsRegular() || fi.Name() == "reserve" { // which each repository has for when the disk is full
			return err
		}
		st := statOf(fi)
		switch {
		case st.Nlink < 2 || !strings.Contains(path, "/objects/") && !strings.Contains(path, "/tree/"):
			data += st.Blocks * 512
			if strings.Contains(path, "/objects/") {
				t.Errorf("object %s is not shared", path)
			}
		case strings.Contains(path, "/tree/"):
			linked += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB of the layer are linked, %d KiB are new", linked>>10, data>>10)
	if linked < int64(len(base))*9/10 || data > 64<<10 {
		t.Errorf("%d KiB of a layer of %d KiB are linked, %d KiB are new", linked>>10, len(base)>>10, data>>10)
	}
}

// Layers that come in beside a pinned image have parents in the pinned store; unpinning leaves them whole.
func TestUnpinHolds(t *testing.T) {
	w := newWorld(t)
	base, v1, v2 := layer(t, "base", 10), layer(t, "v1", 3), layer(t, "v2", 3)
	w.put(one, []string{"localhost/os:1"}, base, v1)
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "os"}) })
	if err := os.RemoveAll(w.main.GraphRoot); err != nil {
		t.Fatal(err)
	}
	// A program that sees both stores puts v2's own layer alone into its store.
	baseID := digest.FromString(digest.FromBytes(base).String()).Encoded()
	helper(t, "put-child", w.main.GraphRoot, w.main.RunRoot, w.pinned(), baseID, string(v2))
	w.inPins(func(s *pins.Store) {
		r, err := s.Unpin("os", false)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Images) != 1 || len(r.Layers) != 1 || len(r.Held) != 1 || r.Held[0].Layer != baseID || len(r.Held[0].By) != 1 {
			t.Errorf("unpin gives %+v", r)
		}
		clean(t, s)
	})
	helper(t, "check-child", w.main.GraphRoot, w.main.RunRoot, w.pinned(), baseID, string(v2))
	if err := os.RemoveAll(w.main.GraphRoot); err != nil {
		t.Fatal(err)
	}
	w.inPins(func(s *pins.Store) {
		r, err := s.Collect(false)
		if err != nil || len(r.Layers) != 1 || len(r.Held) != 0 {
			t.Errorf("collect gives %+v, %v", r, err)
		}
	})
}

// A graphroot that nobody pinned from is registered by the driver when it shows the pinned store.
func TestDriverRegisters(t *testing.T) {
	w := newWorld(t)
	base, v2 := layer(t, "base", 10), layer(t, "v2", 3)
	w.put(one, []string{"localhost/os:1"}, base)
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "os"}) })
	baseID := digest.FromString(digest.FromBytes(base).String()).Encoded()
	root, run := filepath.Join(w.dir, "root2"), filepath.Join(w.dir, "run2")
	helper(t, "put-child", root, run, w.pinned(), baseID, string(v2))
	w.inPins(func(s *pins.Store) {
		r, err := s.Unpin("os", false)
		if err != nil || len(r.Layers) != 0 || len(r.Held) != 1 || r.Held[0].By[0].Graphroot != root {
			t.Errorf("unpin gives %+v, %v", r, err)
		}
	})
	helper(t, "check-child", root, run, w.pinned(), baseID, string(v2))
}

// A registered graphroot that cannot be read keeps unpin from removing anything.
func TestUnpinRefuses(t *testing.T) {
	w := newWorld(t)
	w.put(one, []string{"localhost/os:1"}, layer(t, "base", 3))
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "os"}) })
	path := filepath.Join(w.main.GraphRoot, "ostree-layers", "layers.json")
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.inPins(func(s *pins.Store) {
		_, err := s.Unpin("os", false)
		var unreadable *pins.UnreadableError
		if !errors.As(err, &unreadable) || !errors.Is(err, pins.ErrRefused) || len(unreadable.Layers) != 1 || !strings.Contains(err.Error(), w.main.GraphRoot) {
			t.Errorf("unpin gives %v", err)
		}
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0].Missing || list[0].Unnamed {
			t.Errorf("after a refusal the list is %+v, %v", list, err)
		}
		r, err := s.Unpin("os", true)
		if err != nil || len(r.Layers) != 1 || len(r.Broken) != 1 {
			t.Errorf("unpin by force gives %+v, %v", r, err)
		}
	})
}

// Replacing moves the names and the pin, and removes the old image.
func TestReplace(t *testing.T) {
	w := newWorld(t)
	base := layer(t, "base", 10)
	w.put(one, []string{"localhost/os:latest", "localhost/os:1"}, base, layer(t, "v1", 3))
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "os", Reason: "boot"}) })
	w.inMain(func(s storage.Store) {
		if err := s.RemoveNames(one, []string{"localhost/os:latest"}); err != nil {
			t.Fatal(err)
		}
	})
	w.put(two, []string{"localhost/os:latest", "localhost/os:2"}, base, layer(t, "v2", 3))
	w.inPins(func(s *pins.Store) {
		if _, err := s.Pin(context.Background(), pins.Request{Image: two, Name: "os"}); !errors.Is(err, pins.ErrRefused) {
			t.Errorf("pin under a taken name: %v", err)
		}
		p := pin(t, s, pins.Request{Image: "os:latest", Replace: "os"})
		if p.Pin.Image != two || p.Pin.Reason != "boot" || p.Replaced == nil || len(p.Replaced.Layers) != 1 || len(p.Replaced.Images) != 1 {
			t.Errorf("replace gives %+v, replaced %+v", p, p.Replaced)
		}
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0].Image != two || !slices.Contains(list[0].Names, "localhost/os:latest") {
			t.Errorf("the list is %+v, %v", list, err)
		}
		clean(t, s)
		if _, err := s.Pin(context.Background(), pins.Request{Image: two, Replace: "none"}); !errors.Is(err, pins.ErrUnknown) {
			t.Errorf("replace a pin that is not there: %v", err)
		}
	})
}

// A record without an entry is a pin, named by its ID.
func TestRecordWithoutEntry(t *testing.T) {
	w := newWorld(t)
	w.put(one, nil, layer(t, "base", 3))
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one}) })
	if err := os.Remove(filepath.Join(w.pinned(), "pins.json")); err != nil {
		t.Fatal(err)
	}
	w.inPins(func(s *pins.Store) {
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0].Name != one || !list[0].Unnamed {
			t.Errorf("the list is %+v, %v", list, err)
		}
		if r, err := s.Collect(false); err != nil || len(r.Layers) != 0 {
			t.Errorf("collect gives %+v, %v", r, err)
		}
		advice, err := s.Doctor(nil)
		if err != nil || len(advice) != 1 {
			t.Errorf("doctor says %+v, %v", advice, err)
		}
		if r, err := s.Unpin(one[:8], false); err != nil || len(r.Layers) != 1 || len(r.Images) != 1 {
			t.Errorf("unpin gives %+v, %v", r, err)
		}
	})
}

// What may not be pinned is refused with the reason.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.put(one, []string{"a.example/os:1"}, layer(t, "base", 3))
	w.put(two, []string{"b.example/os:1"}, layer(t, "base", 3), layer(t, "v2", 3))
	w.inPins(func(s *pins.Store) {
		for what, want := range map[string]error{"none": pins.ErrUnknown, "os:1": pins.ErrRefused, "": pins.ErrUnknown} {
			if _, err := s.Pin(context.Background(), pins.Request{Image: what}); !errors.Is(err, want) {
				t.Errorf("pin %q: %v, want %v", what, err, want)
			}
		}
	})
	// A file of a layer is changed behind everybody's back.
	found, err := filepath.Glob(filepath.Join(w.main.GraphRoot, "ostree", "layers", "*", "tree", "usr", "v2", "1"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	text[100] ^= 1
	st, _ := os.Stat(found[0])
	if err := os.WriteFile(found[0], text, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(found[0], st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	w.inPins(func(s *pins.Store) {
		_, err := s.Pin(context.Background(), pins.Request{Image: two})
		if !errors.Is(err, pins.ErrDamaged) {
			t.Errorf("pin a damaged image: %v", err)
		}
		list, err := s.List()
		if err != nil || len(list) != 0 {
			t.Errorf("the list is %+v, %v", list, err)
		}
		if left, err := os.ReadDir(filepath.Join(w.pinned(), "ostree", "layers")); err != nil || len(left) != 0 {
			t.Errorf("the refused image left %v, %v", left, err)
		}
		clean(t, s)
	})
	text[100] ^= 1
	if err := os.WriteFile(found[0], text, 0); err != nil {
		t.Fatal(err)
	}
	o := w.options()
	o.Path = filepath.Join(w.main.GraphRoot, "pinned")
	if _, err := pins.Open(o, true); !errors.Is(err, pins.ErrRefused) {
		t.Errorf("a pinned store in graphroot: %v", err)
	}
	o.Path = filepath.Join(w.dir, "others")
	if err := errors.Join(os.Mkdir(o.Path, 0o755), os.Chown(o.Path, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := pins.Open(o, true); !errors.Is(err, pins.ErrRefused) || !strings.Contains(err.Error(), "1000") {
		t.Errorf("a pinned store of another user: %v", err)
	}
	o.Path = filepath.Join(w.dir, "absent")
	if _, err := pins.Open(o, false); !errors.Is(err, pins.ErrNoStore) {
		t.Errorf("no pinned store: %v", err)
	}
}

// Verify finds a changed byte, whoever changed it; a damaged table is an error and removes nothing.
func TestVerifyFindsDamage(t *testing.T) {
	w := newWorld(t)
	w.put(one, []string{"localhost/os:1"}, layer(t, "base", 3))
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "os"}) })
	found, err := filepath.Glob(filepath.Join(w.pinned(), "ostree", "layers", "*", "tree", "usr", "base", "1"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	f, err := os.OpenFile(found[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("X"), 5)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	w.inPins(func(s *pins.Store) {
		v, err := s.Verify(context.Background(), []string{"os"}, false)
		if err != nil || !v.Damaged() || len(v.Images) != 1 || len(v.Images[0].Problems) == 0 || len(v.Repo) == 0 {
			t.Errorf("verify finds %+v, %v", v, err)
		}
		if err := os.WriteFile(filepath.Join(w.pinned(), "pins.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unpin("os", true); !errors.Is(err, pins.ErrDamaged) {
			t.Errorf("unpin with a damaged table: %v", err)
		}
		if _, err := s.List(); !errors.Is(err, pins.ErrDamaged) {
			t.Errorf("list with a damaged table: %v", err)
		}
	})
}

// On another filesystem a pin is a copy, which is said first; one that has no room is refused before anything is written.
func TestOtherFilesystem(t *testing.T) {
	w := newWorld(t)
	w.put(one, []string{"localhost/os:1"}, layer(t, "base", 200))
	other := testfs.Mount(t, "ext4")
	o := w.options()
	o.Path = filepath.Join(other, "pinned")
	s, err := pins.Open(o, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	full := fill(t, other)
	if _, err := s.Pin(context.Background(), pins.Request{Image: one}); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "MB free") {
		t.Errorf("pin without room: %v", err)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	w.said = nil
	p := pin(t, s, pins.Request{Image: one})
	if p.Sharing != pins.ByCopy || len(w.said) == 0 || !strings.Contains(w.said[0], "is copied") {
		t.Errorf("pin gives %+v and says %q", p, w.said)
	}
	clean(t, s)
}

// fill leaves 2 MiB of a filesystem.
func fill(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for left := int64(st.Bavail)*st.Bsize - 2<<20; left > 1<<20; left /= 2 {
		at, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Fallocate(int(f.Fd()), 0, at, left); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if free := int64(st.Bavail) * st.Bsize; free < 3<<20 {
			break
		}
	}
	return f.Name()
}

// Pins end when asked, not before.
func TestExpiry(t *testing.T) {
	w := newWorld(t)
	w.put(one, []string{"localhost/os:1"}, layer(t, "base", 3))
	then := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	w.inPins(func(s *pins.Store) {
		pin(t, s, pins.Request{Image: one, Name: "a", Expires: &then})
		pin(t, s, pins.Request{Image: one, Name: "b"})
		if _, err := s.Unpin(one, false); !errors.Is(err, pins.ErrRefused) {
			t.Errorf("unpin an image with two pins: %v", err)
		}
		r, err := s.UnpinExpired(time.Now(), false)
		if err != nil || len(r.Pins) != 1 || len(r.Images) != 0 {
			t.Errorf("unpin what expired: %+v, %v", r, err)
		}
		if r, err = s.Unpin("localhost/os:1", false); err != nil || len(r.Images) != 1 {
			t.Errorf("unpin: %+v, %v", r, err)
		}
	})
}
