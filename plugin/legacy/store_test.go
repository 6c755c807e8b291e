package legacy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	storage "github.com/containers/storage"
	"github.com/containers/storage/pkg/archive"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// openStore opens the store in dir/root with the driver.
func openStore(t testing.TB, dir string, change ...func(o *storage.StoreOptions)) storage.Store {
	t.Helper()
	o := storage.StoreOptions{
		GraphRoot:          filepath.Join(dir, "root"),
		RunRoot:            filepath.Join(dir, "run"),
		GraphDriverName:    driver.Name,
		GraphDriverOptions: []string{noPins},
	}
	for _, c := range change {
		c(&o)
	}
	s, err := storage.GetStore(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// closeStore ends the use of a store, as the end of its program does.
func closeStore(t testing.TB, s storage.Store) {
	t.Helper()
	if _, err := s.Shutdown(false); err != nil {
		t.Error(err)
	}
	s.Free()
}

// putImage adds an image of the given layers, whose ids are prefix-0, prefix-1 and so on.
func putImage(t testing.TB, s storage.Store, prefix string, tars ...[]byte) *storage.Image {
	t.Helper()
	parent := ""
	for i, b := range tars {
		id := prefix + "-" + string(rune('0'+i))
		l, _, err := s.PutLayer(id, parent, nil, "", false, nil, bytes.NewReader(b))
		if err != nil && strings.Contains(err.Error(), "/"+driver.Name+"-layers/tmp/temp-dir-") {
			// Of containers/storage's own: a process that opens the store can take the directory in which another one is about to
			// write a tar-split for that of a dead process, between the making of its lock file and the locking.
			t.Logf("put layer again: %v", err)
			l, _, err = s.PutLayer(id, parent, nil, "", false, nil, bytes.NewReader(b))
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(l.UncompressedDigest) != digest(b) {
			t.Errorf("layer %s: digest %s; the tar has %s", id, l.UncompressedDigest, digest(b))
		}
		parent = id
	}
	img, err := s.CreateImage(prefix, []string{"localhost/" + prefix + ":1"}, parent, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// wantDiff compares what the store gives for a layer with the tar that the layer was made from.
func wantDiff(t testing.TB, s storage.Store, id string, want []byte) {
	t.Helper()
	if got := diff(t, s, id); !bytes.Equal(got, want) {
		t.Errorf("layer %s comes back as %d bytes %s, and was %d bytes %s", id, len(got), digest(got), len(want), digest(want))
	}
}

// diff returns the uncompressed tar of a layer.
func diff(t testing.TB, s storage.Store, id string) []byte {
	t.Helper()
	uncompressed := archive.Uncompressed
	rc, err := s.Diff("", id, &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// wantSound runs containers/storage's own check, and the repository's.
func wantSound(t testing.TB, s storage.Store) {
	t.Helper()
	for name, o := range map[string]*storage.CheckOptions{"quick": storage.CheckMost(), "everything": storage.CheckEverything()} {
		r, err := s.Check(o)
		if err != nil {
			t.Fatalf("check %s: %v", name, err)
		}
		for kind, found := range map[string]map[string][]error{
			"layer": r.Layers, "read-only layer": r.ROLayers, "image": r.Images, "read-only image": r.ROImages, "container": r.Containers,
		} {
			for id, errs := range found {
				if !checkSeesReadOnlyParents {
					errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, storage.ErrLayerMissing) })
				}
				if len(errs) == 0 {
					continue
				}
				t.Errorf("check %s: %s %s: %v", name, kind, id, errs)
			}
		}
	}
	fsck(t, filepath.Join(s.GraphRoot(), driver.Name, "repo"))
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}

// TestStore is a store's life: an image, containers, their changes, restarts, and the end of it all.
func TestStore(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		s := openStore(t, dir)
		base, change := baseLayer(t), changeLayer(t)
		img := putImage(t, s, "img", base, change)
		wantDiff(t, s, "img-0", base)
		wantDiff(t, s, "img-1", change)
		c, err := s.CreateContainer("ctr", nil, img.ID, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		useContainer(t, s, c)
		wantSound(t, s)

		closeStore(t, s)
		s = openStore(t, dir)
		wantDiff(t, s, "img-0", base)
		wantDiff(t, s, "img-1", change)
		wantChanges(t, s, c.LayerID)
		wantSound(t, s)

		if _, err := s.DeleteImage(img.ID, true); !errors.Is(err, storage.ErrImageUsedByContainer) {
			t.Errorf("delete of a used image: %v", err)
		}
		if err := s.DeleteContainer(c.ID); err != nil {
			t.Fatal(err)
		}
		if err := s.GarbageCollect(); err != nil {
			t.Fatal(err)
		}
		wantDiff(t, s, "img-1", change)
		if _, err := s.DeleteImage(img.ID, true); err != nil {
			t.Fatal(err)
		}
		wantNoLayers(t, s)
		wantSound(t, s)
		closeStore(t, s)
	})
}

// useContainer mounts a container, checks what it shows, and changes it.
func useContainer(t *testing.T, s storage.Store, c *storage.Container) {
	t.Helper()
	root, err := s.Mount(c.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(root, "etc/passwd")); !strings.HasSuffix(got, "bash\n") {
		t.Errorf("passwd is %q", got)
	}
	for _, gone := range []string{"etc/passwd-", "var/tmp"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", gone, err)
		}
	}
	fi, err := os.Stat(filepath.Join(root, "usr/lib/one"))
	if err != nil || !fi.ModTime().Equal(entryTime) {
		t.Errorf("time of a file: %v %v", fi.ModTime(), err)
	}
	write(t, filepath.Join(root, "usr/lib/one"), "written in a container")
	write(t, filepath.Join(root, "new"), "new")
	if err := os.Remove(filepath.Join(root, "usr/lib/three")); err != nil {
		t.Error(err)
	}
	for _, same := range []string{"usr/lib/two"} {
		if got := read(t, filepath.Join(root, same)); got != "the same text" {
			t.Errorf("%s changed with its twin: %q", same, got)
		}
	}
	if _, err := s.Unmount(c.ID, false); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, s, c.LayerID)
}

// wantChanges compares a container's changes with what useContainer did.
func wantChanges(t *testing.T, s storage.Store, layer string) {
	t.Helper()
	changes, err := s.Changes("", layer)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.String())
	}
	slices.Sort(got)
	want := []string{"A /new", "C /usr", "C /usr/lib", "C /usr/lib/one", "D /usr/lib/three"}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if n := len(diff(t, s, layer)); n == 0 {
		t.Error("the container's diff is empty")
	}
}

// wantNoLayers checks that nothing is left, of the store and of the driver.
func wantNoLayers(t *testing.T, s storage.Store) {
	t.Helper()
	ls, err := s.Layers()
	if err != nil || len(ls) != 0 {
		t.Errorf("%d layers are left: %v", len(ls), err)
	}
	d, err := s.GraphDriver()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := d.ListLayers()
	if err != nil || len(ids) != 0 {
		t.Errorf("the driver still has %q: %v", ids, err)
	}
	objects, err := filepath.Glob(filepath.Join(s.GraphRoot(), driver.Name, "repo", "objects", "*", "*"))
	if err != nil || len(objects) != 0 {
		t.Errorf("%d objects are left, %q among them: %v", len(objects), objects[:min(3, len(objects))], err)
	}
}

// TestWipe removes everything through the store.
func TestWipe(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	s := openStore(t, dir)
	img := putImage(t, s, "img", baseLayer(t), changeLayer(t))
	if _, err := s.CreateContainer("ctr", nil, img.ID, "", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Wipe(); err != nil {
		t.Fatal(err)
	}
	wantNoLayers(t, s)
	wantSound(t, s)
	closeStore(t, s)
}

// TestGarbageCollect has containers/storage remove a layer that it does not know.
func TestGarbageCollect(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	s := openStore(t, dir)
	putImage(t, s, "img", baseLayer(t))
	d, err := s.GraphDriver()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Create("stray", "img-0", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.GarbageCollect(); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.ListLayers(); err != nil || !slices.Equal(ids, []string{"img-0"}) {
		t.Errorf("the driver has %q: %v", ids, err)
	}
	wantSound(t, s)
	closeStore(t, s)
}

// TestBadTar has the store unchanged after a layer that cannot be read.
func TestBadTar(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	s := openStore(t, dir)
	putImage(t, s, "img", baseLayer(t))
	good := baseLayer(t)
	for name, b := range map[string][]byte{
		"truncated": good[:len(good)/2],
		"garbage":   bytes.Repeat([]byte("garbage "), 4096),
	} {
		_, _, err := s.PutLayer("bad", "img-0", nil, "", false, nil, bytes.NewReader(b))
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		t.Logf("%s: %v", name, err)
		if d, err := s.GraphDriver(); err != nil || d.Exists("bad") {
			t.Errorf("%s: the layer is there; %v", name, err)
		}
	}
	wantSound(t, s)
	closeStore(t, s)
}

// TestWrittenImage commits a layer that was written through a mount.
func TestWrittenImage(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	s := openStore(t, dir)
	putImage(t, s, "img", baseLayer(t))
	l, err := s.CreateLayer("loose", "img-0", nil, "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.Mount(l.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/new"), "new")
	if _, err := s.Unmount(l.ID, false); err != nil {
		t.Fatal(err)
	}
	b := diff(t, s, l.ID)
	copied, _, err := s.PutLayer("copy", "img-0", nil, "", false, nil, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, s, copied.ID, b)
	wantSound(t, s)
	closeStore(t, s)
}

// TestImageIsNeverWritten mounts an image's layer for writing, as some commands do. Its files are objects.
func TestImageIsNeverWritten(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	s := openStore(t, dir)
	base := baseLayer(t)
	putImage(t, s, "img", base)
	root, err := s.Mount("img-0", "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "usr/lib/one"), "written over an image")
	if _, err := s.Unmount("img-0", false); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, s, "img-0", base)
	fsck(t, filepath.Join(s.GraphRoot(), driver.Name, "repo"))
	closeStore(t, s)
}
