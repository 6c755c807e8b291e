package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/pins"
)

// TestListsOfLayersAreRead: what du reads itself is what containers/storage reads, layers of containers among them, and a layer that a dead
// process left is for containers/storage to remove.
func TestListsOfLayersAreRead(t *testing.T) {
	fs := testfs.Mount(t, "ext4")
	isolate(t)
	dir := t.TempDir()
	fill(t, rand.New(rand.NewPCG(3, 4)), dir, "one")
	s := openTest(t, fs)
	putImage(s, "localhost/a:latest", []string{dir})
	id, err := s.Lookup("localhost/a:latest")
	if err != nil {
		t.Fatal(err)
	}
	for _, volatile := range []bool{true, false} {
		if _, err := s.CreateContainer("", nil, id, "", "", &storage.ContainerOptions{Volatile: volatile}); err != nil {
			t.Fatal(err)
		}
	}
	want, err := s.Layers()
	if err != nil {
		t.Fatal(err)
	}
	closeTest(t, s)

	lists := filepath.Join(fs, "root", driverName+"-layers")
	got, plain, err := pins.LayerRecords(lists)
	if err != nil || !plain || len(got) != len(want) || len(got) < 3 {
		t.Fatalf("%d layers, plain is %v, %v; containers/storage has %d", len(got), plain, err, len(want))
	}
	for _, l := range want {
		if record := (pins.LayerRecord{ID: l.ID, Parent: l.Parent, DiffID: l.UncompressedDigest.String()}); !slices.Contains(got, record) {
			t.Errorf("%+v is not among %+v", record, got)
		}
	}

	path := filepath.Join(lists, "layers.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dead := append([]byte(`[{"id":"dead","created":"2026-01-01T00:00:00Z","flags":{"incomplete":true}},`), text[1:]...)
	writeFile(t, path, dead)
	later := time.Now().Add(time.Second)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	if said := du(t, []string{"--root", fs + "/root", "--runroot", fs + "/run", "--storage-opt", "pinned_store=none", "du", "--format", "json"}); len(said.Images) != 1 {
		t.Errorf("du says %+v", said)
	}
	if got, plain, err = pins.LayerRecords(lists); err != nil || !plain || len(got) != len(want) {
		t.Errorf("after du there are %d layers, plain is %v, %v: the dead one was not removed", len(got), plain, err)
	}
}
