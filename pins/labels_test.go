package pins_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/pins"
	"github.com/ostree-storage/ostree-storage/store"
)

// Between stores with other store labels no inode can be shared, but blocks can.
func TestPinWithAnotherLabel(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			w := worldIn(t, testfs.Mount(t, kind))
			repo := filepath.Join(w.pinned(), "ostree", "repo")
			if err := os.MkdirAll(filepath.Dir(repo), 0o700); err != nil {
				t.Fatal(err)
			}
			r, err := store.Init(repo, store.Options{Label: "system_u:object_r:container_ro_file_t:s0"})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			w.put(one, []string{"localhost/os:1"}, layer(t, "base", 100))
			w.inPins(func(s *pins.Store) {
				pin(t, s, pins.Request{Image: one})
				clean(t, s)
			})
			objects, err := filepath.Glob(filepath.Join(w.main.GraphRoot, "ostree/layers/*/tree/usr/base/*"))
			if err != nil || len(objects) != 100 {
				t.Fatalf("%d files, %v", len(objects), err)
			}
			for _, path := range objects {
				twin := filepath.Join(w.pinned(), strings.TrimPrefix(path, w.main.GraphRoot))
				a, err := testfs.Extents(path)
				if err != nil {
					t.Fatal(err)
				}
				b, err := testfs.Extents(twin)
				if err != nil {
					t.Fatal(err)
				}
				if len(a) == 0 || !slices.Equal(a, b) {
					t.Fatalf("%s does not share its blocks: %v, %v", twin, a, b)
				}
			}
		})
	}
}
