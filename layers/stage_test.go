package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// An item is an entry of a tar that a test makes.
type item struct {
	tar.Header
	body string
}

func dir(name string, mode int64) item {
	return item{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: time.Unix(1000, 5)}}
}

func file(name, body string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(2000, 7)}, body: body}
}

func symlink(name, target string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: time.Unix(3000, 9)}}
}

func link(name, target string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: time.Unix(2000, 7)}}
}

// makeTar writes a tar.
func makeTar(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.body))
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("write header of %q: %v", h.Name, err)
		}
		if _, err := w.Write([]byte(i.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// openCatalog makes a home that is checked when the test ends.
func openCatalog(t testing.TB, home string, o layers.Options) *layers.Catalog {
	t.Helper()
	c, err := layers.OpenCatalog(home, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		storetest.Check(t, c.Repo())
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// apply makes a layer of a tar.
func apply(t testing.TB, c *layers.Catalog, id, parent string, data []byte) *layers.Layer {
	t.Helper()
	l, err := tryApply(c, id, parent, data)
	if err != nil {
		t.Fatalf("apply layer %s: %v", id, err)
	}
	return l
}

func tryApply(c *layers.Catalog, id, parent string, data []byte) (*layers.Layer, error) {
	o := layers.StageOptions{ID: id}
	if parent != "" {
		chain, err := layers.Catalogs{c}.Chain(parent)
		if err != nil {
			return nil, err
		}
		o.Chain = chain
	}
	s, err := c.Stage(context.Background(), bytes.NewReader(data), o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := c.Create(id, parent, layers.CreateOptions{Chain: o.Chain}); err != nil {
		return nil, err
	}
	if err := c.Commit(id, s); err != nil {
		return nil, err
	}
	return c.Layer(id)
}

func TestStageOrdinary(t *testing.T) {
	c := openCatalog(t, t.TempDir()+"/home", layers.Options{})
	l := apply(t, c, "base", "", makeTar(t, dir("./", 0o755), dir("usr/", 0o755), file("usr/a", "hello\n"),
		link("usr/b", "usr/a"), symlink("usr/c", "a"), file("etc/passwd", "root"), file("x/.wh.y", "")))
	if l.Size != 6+1+4 {
		t.Errorf("size is %d", l.Size)
	}
	ids, err := c.IDs()
	t.Log(l, ids, err)
}

// run runs a program.
func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}
