package pins_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"go.podman.io/storage/types"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/pins"
)

// A world is a main store and the place of its pinned one.
type world struct {
	t    *testing.T
	dir  string
	main types.StoreOptions
	said []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return worldIn(t, testfs.Mount(t, "ext4"))
}

func worldIn(t *testing.T, dir string) *world {
	return &world{t: t, dir: dir, main: types.StoreOptions{
		GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), GraphDriverName: "ostree",
	}}
}

func (w *world) pinned() string { return filepath.Join(w.dir, "pinned") }

// inMain runs f with the main store, in which nothing is mounted then.
func (w *world) inMain(f func(storage.Store)) {
	w.t.Helper()
	if w.openMain(f) {
		w.t.Error("a container is mounted")
	}
}

// openMain runs f with the main store, and reports whether a container is mounted in the end, by whomever.
func (w *world) openMain(f func(storage.Store)) (mounted bool) {
	w.t.Helper()
	o := w.main
	o.GraphDriverOptions = []string{"pinned_store=none"}
	s, err := storage.GetStore(o)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if _, err := s.Shutdown(false); err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
			w.t.Error(err)
		} else if err != nil {
			mounted = true
		}
		s.Free()
	}()
	f(s)
	return false
}

// inPins runs f with the pinned store.
func (w *world) inPins(f func(*pins.Store)) {
	w.t.Helper()
	s, err := pins.Open(w.options(), true)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	f(s)
}

func (w *world) options() pins.Options {
	return pins.Options{Path: w.pinned(), Main: w.main, Message: func(m string) { w.said = append(w.said, m) }}
}

// put makes an image of the given layers, each of which is the base of the next.
func (w *world) put(id string, names []string, layers ...[]byte) {
	w.t.Helper()
	w.inMain(func(s storage.Store) {
		parent := ""
		for _, b := range layers {
			chain := digest.FromString(parent + digest.FromBytes(b).String()).Encoded()
			if _, err := s.Layer(chain); err != nil {
				o := &storage.LayerOptions{
					BigData: []storage.LayerBigDataOption{{Key: "note", Data: strings.NewReader("of " + chain)}}}
				if _, _, err := s.PutLayer(chain, parent, nil, "", false, o, bytes.NewReader(packed(w.t, b))); err != nil {
					w.t.Fatal(err)
				}
			}
			parent = chain
		}
		o := &storage.ImageOptions{CreationDate: time.Unix(1700000000, 0).UTC(), NamesHistory: []string{"old/" + id},
			Flags: map[string]any{"mark": "x"}, Digest: digest.FromString(id),
			BigData: []storage.ImageBigDataOption{{Key: "signature-1", Data: []byte("signed " + id), Digest: digest.FromString("signed " + id)}}}
		if _, err := s.CreateImage(id, names, parent, `{"meta":"`+id+`"}`, o); err != nil {
			w.t.Fatal(err)
		}
	})
}

// packed compresses a layer, as registries have it.
func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// layer makes a tar of n files; shared files are equal in every layer.
func layer(t *testing.T, name string, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, text string) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1600000000, 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		add(fmt.Sprintf("usr/%s/%d", name, i), strings.Repeat(fmt.Sprintf("%s %d\n", name, i), 2000))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pin(t *testing.T, s *pins.Store, r pins.Request) *pins.Pinned {
	t.Helper()
	p, err := s.Pin(context.Background(), r)
	if err != nil {
		t.Fatalf("pin %+v: %v", r, err)
	}
	return p
}

func clean(t *testing.T, s *pins.Store) {
	t.Helper()
	v, err := s.Verify(context.Background(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if v.Damaged() {
		t.Errorf("verify finds %+v", v)
	}
}
