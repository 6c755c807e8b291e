package legacy_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	storage "github.com/containers/storage"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// besideOverlay runs a benchmark on our driver and on the overlay driver, each in a store of its own on one filesystem.
func besideOverlay(b *testing.B, run func(b *testing.B, s storage.Store)) {
	dir := testfs.Mount(b, "ext4")
	for _, name := range []string{"overlay", driver.Name} {
		b.Run(name, func(b *testing.B) {
			s := openStore(b, filepath.Join(dir, name), func(o *storage.StoreOptions) {
				o.GraphDriverName = name
				if name != driver.Name {
					o.GraphDriverOptions = []string{"skip_mount_home=true"}
				}
			})
			defer closeStore(b, s)
			run(b, s)
		})
	}
}

// treeTar is a layer of the given number of files, in directories of a hundred, whose content depends on the seed.
func treeTar(b *testing.B, files int, seed string) []byte {
	var entries []entry
	for i := range files {
		if i%100 == 0 {
			entries = append(entries, entry{name: fmt.Sprintf("d%03d/", i/100)})
		}
		entries = append(entries, entry{
			name: fmt.Sprintf("d%03d/file-%d", i/100, i),
			body: strings.Repeat(fmt.Sprintf("%s %d ", seed, i), 20+i%500),
		})
	}
	return layerTar(b, entries...)
}

// BenchmarkPutLayer adds a layer of 5,000 files, known content and new.
func BenchmarkPutLayer(b *testing.B) {
	for _, kind := range []string{"new", "known"} {
		b.Run(kind, func(b *testing.B) {
			besideOverlay(b, func(b *testing.B, s storage.Store) {
				first := treeTar(b, 5000, "first")
				if _, _, err := s.PutLayer("first", "", nil, "", false, nil, bytes.NewReader(first)); err != nil {
					b.Fatal(err)
				}
				for i := 0; b.Loop(); i++ {
					b.StopTimer()
					tar := first
					if kind == "new" {
						tar = treeTar(b, 5000, fmt.Sprint(i))
					}
					id := fmt.Sprintf("l%d", i)
					b.SetBytes(int64(len(tar)))
					b.StartTimer()
					if _, _, err := s.PutLayer(id, "", nil, "", false, nil, bytes.NewReader(tar)); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := s.DeleteLayer(id); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		})
	}
}

// BenchmarkDeleteLayer removes a layer of 5,000 files.
func BenchmarkDeleteLayer(b *testing.B) {
	besideOverlay(b, func(b *testing.B, s storage.Store) {
		tar := treeTar(b, 5000, "gone")
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			id := fmt.Sprintf("l%d", i)
			if _, _, err := s.PutLayer(id, "", nil, "", false, nil, bytes.NewReader(tar)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := s.DeleteLayer(id); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkContainer takes a container of an image of 20 layers through its life.
func BenchmarkContainer(b *testing.B) {
	besideOverlay(b, func(b *testing.B, s storage.Store) {
		parent := ""
		for i := range 20 {
			id := fmt.Sprintf("img-%d", i)
			if _, _, err := s.PutLayer(id, parent, nil, "", false, nil, bytes.NewReader(treeTar(b, 10, id))); err != nil {
				b.Fatal(err)
			}
			parent = id
		}
		img, err := s.CreateImage("img", nil, parent, "", nil)
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; b.Loop(); i++ {
			c, err := s.CreateContainer(fmt.Sprintf("c%d", i), nil, img.ID, "", "", nil)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Mount(c.ID, ""); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Unmount(c.ID, false); err != nil {
				b.Fatal(err)
			}
			if err := s.DeleteContainer(c.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
