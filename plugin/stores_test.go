package plugin_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	storage "go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

const populateVariable = "OSTREE_TEST_POPULATE"

// populate makes a store with one image in dir, in a process of its own: one process cannot have a store both as its own and as
// an additional one.
func populate(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPopulate$", "-test.v")
	cmd.Env = append(os.Environ(), populateVariable+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("populate %s: %v\n%s", dir, err, out)
	}
}

// TestPopulate is populate's other half.
func TestPopulate(t *testing.T) {
	dir := os.Getenv(populateVariable)
	if dir == "" {
		t.Skip("this is a part of other tests, which run it in a process of its own")
	}
	s := openStore(t, dir)
	putImage(t, s, "shared", baseLayer(t), changeLayer(t))
	closeStore(t, s)
}

// TestAdditionalStore uses an image of a read-only store: it runs, saves and checks, and nothing changes in its store.
func TestAdditionalStore(t *testing.T) {
	for name, option := range map[string]func(path string) []string{
		"imagestore": func(p string) []string { return []string{noPins, "imagestore=" + p} },
		"pinned":     func(p string) []string { return []string{".pinned_store=" + p} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := testfs.Mount(t, "ext4")
			other := filepath.Join(dir, "other")
			populate(t, other)
			before := listing(t, other)
			s := openStore(t, dir, func(o *storage.StoreOptions) { o.GraphDriverOptions = option(filepath.Join(other, "root")) })
			useAdditional(t, s)
			closeStore(t, s)
			after := listing(t, other)
			for _, line := range before {
				if !slices.Contains(after, line) {
					t.Errorf("the read-only store had %s", line)
				}
			}
			for _, line := range after {
				if !slices.Contains(before, line) {
					t.Errorf("the read-only store has now %s", line)
				}
			}
			fsck(t, filepath.Join(other, "root", driver.Name, "repo"))
		})
	}
}

func useAdditional(t *testing.T, s storage.Store) {
	t.Helper()
	wantDiff(t, s, "shared-0", baseLayer(t))
	wantDiff(t, s, "shared-1", changeLayer(t))
	c, err := s.CreateContainer("ctr", nil, "shared", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	useContainer(t, s, c)
	// A layer over one of the other store, and the same content again.
	img := putImageOver(t, s, "own", "shared-0", changeLayer(t))
	c2, err := s.CreateContainer("ctr2", nil, img.ID, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	useContainer(t, s, c2)
	wantSound(t, s)
	if _, err := s.DeleteImage("shared", true); err == nil {
		t.Error("an image of a read-only store was deleted")
	}
	d, err := s.GraphDriver()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("shared-0"); err != nil || !d.Exists("shared-0") {
		t.Errorf("remove of a read-only layer is to do nothing: %v", err)
	}
	if ids, err := d.ListLayers(); err != nil || slices.Contains(ids, "shared-0") {
		t.Errorf("the driver lists a read-only layer: %q %v", ids, err)
	}
	if err := s.Wipe(); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, s, "shared-1", changeLayer(t))
}

// putImageOver adds an image of one layer over an existing one.
func putImageOver(t *testing.T, s storage.Store, name, parent string, b []byte) *storage.Image {
	t.Helper()
	if _, _, err := s.PutLayer(name, parent, nil, "", false, nil, strings.NewReader(string(b))); err != nil {
		t.Fatal(err)
	}
	img, err := s.CreateImage(name, nil, name, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// listing names everything below dir with size, mode and link count.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if filepath.Base(path) == "graphroots" {
			return filepath.SkipDir // who uses a pinned store is written there
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		line := fi.Mode().String() + " " + path
		if fi.Mode().IsRegular() && !strings.HasSuffix(path, ".lock") {
			line += " " + fi.ModTime().String()
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestHiddenStores has containers/storage open although an additional store cannot be read.
func TestHiddenStores(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"absent": func(t *testing.T, path string) { must(t, os.RemoveAll(path)) },
		"no layer lock": func(t *testing.T, path string) {
			must(t, os.Remove(filepath.Join(path, "ostree-layers", "layers.lock")))
		},
		"newer format": func(t *testing.T, path string) {
			must(t, os.WriteFile(filepath.Join(path, driver.Name, "version"), []byte("99\n"), 0o600))
		},
		"no home": func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Join(path, driver.Name))) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := testfs.Mount(t, "ext4")
			other := filepath.Join(dir, "other")
			populate(t, other)
			root := filepath.Join(other, "root")
			spoil(t, root)
			s := openStore(t, dir, func(o *storage.StoreOptions) { o.GraphDriverOptions = []string{"pinned_store=" + root} })
			if imgs, err := s.Images(); err != nil || len(imgs) != 0 {
				t.Errorf("%d images, %v", len(imgs), err)
			}
			d, err := s.GraphDriver()
			if err != nil {
				t.Fatal(err)
			}
			if as := d.AdditionalImageStores(); len(as) != 0 {
				t.Errorf("stores %q are offered", as)
			}
			var said bool
			for _, kv := range d.Status() {
				said = said || kv[0] == "Pinned store" && strings.Contains(kv[1], "not used")
			}
			if !said {
				t.Errorf("the status does not say why: %q", d.Status())
			}
			putImage(t, s, "img", baseLayer(t))
			wantSound(t, s)
			closeStore(t, s)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestImageStore keeps images apart from containers.
func TestImageStore(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	images := filepath.Join(dir, "images")
	apart := func(o *storage.StoreOptions) { o.ImageStore = images }
	s := openStore(t, dir, apart)
	base, change := baseLayer(t), changeLayer(t)
	img := putImage(t, s, "img", base, change)
	c, err := s.CreateContainer("ctr", nil, img.ID, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	useContainer(t, s, c)
	wantSound(t, s)
	fsck(t, filepath.Join(images, driver.Name, "repo"))
	for path, there := range map[string]bool{
		filepath.Join(images, driver.Name, "layers", "img-1"):                true,
		filepath.Join(dir, "root", driver.Name, "layers", "img-1"):           false,
		filepath.Join(dir, "root", driver.Name, "layers", c.LayerID):         true,
		filepath.Join(images, driver.Name, "layers", c.LayerID):              false,
		filepath.Join(dir, "root", driver.Name, "layers", c.LayerID, "diff"): true,
	} {
		if _, err := os.Lstat(path); (err == nil) != there {
			t.Errorf("%s: %v", path, err)
		}
	}
	closeStore(t, s)
	s = openStore(t, dir, apart)
	wantDiff(t, s, "img-0", base)
	wantChanges(t, s, c.LayerID)
	must(t, s.DeleteContainer(c.ID))
	if _, err := s.DeleteImage(img.ID, true); err != nil {
		t.Fatal(err)
	}
	wantNoLayers(t, s)
	closeStore(t, s)
}
