package driver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

func TestMain(m *testing.M) {
	// Neither this machine's configuration nor its pinned store is part of a test.
	if err := os.Setenv(driver.ConfigVariable, "none"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// options are those of a driver whose graphroot is dir/root.
func options(dir string, settings ...string) driver.Options {
	return driver.Options{
		Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Settings: append([]string{"pinned_store=none"}, settings...),
	}
}

func home(dir string) string { return filepath.Join(dir, "root", driver.Name) }

// open makes a driver that is closed when the test ends.
func open(t testing.TB, dir string, settings ...string) *driver.Driver {
	t.Helper()
	d, err := driver.New(home(dir), options(dir, settings...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNewRefuses has clear errors, of the class that makes containers/storage try another driver, and leaves nothing behind.
func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		says    string
		class   driver.ErrorClass
	}{
		{"another driver's home", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(home(dir), "l"), 0o700))
		}, "another driver", driver.ClassFilesystem},
		{"a later format", func(t *testing.T, dir string) {
			must(t, open(t, dir).Cleanup())
			must(t, os.WriteFile(filepath.Join(home(dir), "version"), []byte(`{"format":2}`), 0o600))
		}, "format 2", driver.ClassFilesystem},
		{"layers on another mount", func(t *testing.T, dir string) {
			must(t, open(t, dir).Cleanup())
			layers := filepath.Join(home(dir), "layers")
			must(t, unix.Mount(layers, layers, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(layers, 0)) })
		}, "different mounts", driver.ClassFilesystem},
		{"a filesystem without upper directories", func(t *testing.T, dir string) {
			// An overlay cannot hold the upper directory of another.
			for _, d := range []string{"a", "b", "u", "w", "root"} {
				must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
			}
			must(t, unix.Mount("overlay", filepath.Join(dir, "root"), "overlay", 0,
				"lowerdir="+dir+"/a,upperdir="+dir+"/u,workdir="+dir+"/w"))
			t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(dir, "root"), 0)) })
		}, "cannot hold an upper directory", driver.ClassFilesystem},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := testfs.Mount(t, "ext4")
			tt.prepare(t, dir)
			_, statErr := os.Stat(home(dir))
			_, err := driver.New(home(dir), options(dir))
			if err == nil || !strings.Contains(err.Error(), tt.says) || driver.ClassOf(err) != tt.class {
				t.Errorf("error %v of class %d: it should say %q and be of class %d", err, driver.ClassOf(err), tt.says, tt.class)
			}
			if _, err := os.Stat(home(dir)); errors.Is(statErr, os.ErrNotExist) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a home was left behind: %v", err)
			}
		})
	}
}

// TestNoHardlinks stands for a filesystem that has none, of which this kernel has no writable one.
func TestNoHardlinks(t *testing.T) {
	defer driver.SetLink(func(string, string) error { return unix.EPERM })()
	dir := t.TempDir()
	_, err := driver.New(home(dir), options(dir))
	if err == nil || driver.ClassOf(err) != driver.ClassFilesystem || !strings.Contains(err.Error(), "takes no hardlinks") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(home(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a home was left behind: %v", err)
	}
}

func TestQuotaIsRefused(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	if _, err := driver.New(home(dir), options(dir, "size=10g")); !errors.Is(err, driver.ErrNotSupported) {
		t.Errorf("size=10g: %v", err)
	}
	d := open(t, dir)
	for _, tt := range []struct {
		create func(id, parent string, o *driver.CreateOptions) error
		opt    map[string]string
		want   error
	}{
		{d.CreateReadWrite, map[string]string{"size": "10g"}, driver.ErrNotSupported},
		{d.CreateReadWrite, map[string]string{"inodes": "10"}, driver.ErrNotSupported},
		{d.CreateReadWrite, map[string]string{"colour": "red"}, driver.ErrOption},
		{d.Create, map[string]string{"size": "10g"}, driver.ErrOption},
	} {
		if err := tt.create("l", "", &driver.CreateOptions{StorageOpt: tt.opt}); !errors.Is(err, tt.want) {
			t.Errorf("%v: %v", tt.opt, err)
		}
	}
	if d.Exists("l") {
		t.Error("a layer was made all the same")
	}
}

// TestNewIsCheap holds that opening a store that exists costs next to nothing: every command of podman does it, more than once.
func TestNewIsCheap(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	open(t, dir)
	const limit = 5 * time.Millisecond
	best := time.Hour
	for range 20 {
		start := time.Now()
		d, err := driver.New(home(dir), options(dir))
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
		must(t, d.Cleanup())
	}
	t.Logf("%v", best)
	if best > limit {
		t.Errorf("opening takes %v, which is more than %v", best, limit)
	}
}

// TestReInit has a second driver in one process take over what the first one mounted.
func TestReInit(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	a := open(t, dir)
	must(t, a.CreateReadWrite("l", "", nil))
	root, err := a.Get("l", driver.MountOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("x"), 0o600))
	b := open(t, dir)
	again, err := b.Get("l", driver.MountOptions{})
	if err != nil || again != root {
		t.Fatalf("%q, %v; it was %q", again, err, root)
	}
	must(t, b.Put("l"))
	if _, err := os.Stat(filepath.Join(root, "f")); err != nil {
		t.Errorf("the other driver's mount is gone: %v", err)
	}
	must(t, b.Put("l"))
	if _, err := os.Stat(filepath.Join(root, "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still mounted: %v", err)
	}
	must(t, b.Put("l"))
	if err := b.Put("unknown"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("put of an unknown layer: %v", err)
	}
	must(t, b.Remove("l"))
	if err := b.Remove("l"); err != nil { // v1.43 would never open its store again
		t.Errorf("remove of an unknown layer: %v", err)
	}
}

// TestCleanupKeepsWhatIsUsed unmounts only what nobody is in.
func TestCleanupKeepsWhatIsUsed(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	roots := make(map[string]string)
	for _, id := range []string{"busy", "idle"} {
		must(t, d.CreateReadWrite(id, "", nil))
		root, err := d.Get(id, driver.MountOptions{})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o600))
		roots[id] = root
	}
	f, err := os.Open(filepath.Join(roots["busy"], "f"))
	must(t, err)
	must(t, d.Cleanup())
	if _, err := os.Stat(filepath.Join(roots["busy"], "f")); err != nil {
		t.Errorf("a mount in use is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(roots["idle"], "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an idle mount is still there: %v", err)
	}
	must(t, f.Close())
	must(t, d.Remove("busy"))
	must(t, d.Remove("idle"))
}

// TestCreateReplaces makes a layer over what a crash left, even if that is mounted.
func TestCreateReplaces(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	for range 2 {
		must(t, d.CreateReadWrite("l", "", nil))
		root, err := d.Get("l", driver.MountOptions{})
		must(t, err)
		if _, err := os.Stat(filepath.Join(root, "f")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the old layer's content is there: %v", err)
		}
		must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o600))
	}
	must(t, d.Remove("l"))
	must(t, os.MkdirAll(filepath.Join(home(dir), "layers", "broken"), 0o700))
	must(t, d.Create("broken", "", nil))
	if ids, err := d.ListLayers(); err != nil || len(ids) != 1 {
		t.Errorf("%q, %v", ids, err)
	}
}

// TestMetadata gives tools what they know from the overlay driver.
func TestMetadata(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	must(t, d.Create("base", "", nil))
	must(t, d.CreateReadWrite("top", "base", nil))
	m, err := d.Metadata("top")
	must(t, err)
	if m["UpperDir"] == "" || m["LowerDir"] == "" || m["WorkDir"] == "" || m["MergedDir"] != "" {
		t.Errorf("not mounted: %v", m)
	}
	root, err := d.Get("top", driver.MountOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("four"), 0o600))
	if m, err = d.Metadata("top"); err != nil || m["MergedDir"] != root {
		t.Errorf("mounted at %s: %v %v", root, m, err)
	}
	if u, err := d.ReadWriteDiskUsage("top"); err != nil || u.Size != 4 || u.Inodes != 2 {
		t.Errorf("usage %+v, %v", u, err)
	}
	must(t, d.Put("top"))
	if _, err := d.Metadata("unknown"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown: %v", err)
	}
}

// TestMountOptions passes on what the kernel takes and refuses what is the driver's own.
func TestMountOptions(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir, "mountopt=nodev,metacopy=on")
	must(t, d.CreateReadWrite("l", "", nil))
	root, err := d.Get("l", driver.MountOptions{Volatile: true})
	must(t, err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	var line string
	for _, l := range strings.Split(string(mounts), "\n") {
		if strings.Contains(l, " "+root+" ") {
			line = l
		}
	}
	if !strings.Contains(line, "nodev") || !strings.Contains(line, "volatile") || strings.Contains(line, "metacopy=on") {
		t.Errorf("mounted as %q", line)
	}
	must(t, d.Put("l"))
	if _, err := d.Get("l", driver.MountOptions{Options: []string{"index=on"}}); !errors.Is(err, driver.ErrOption) {
		t.Errorf("index=on: %v", err)
	}
	root, err = d.Get("l", driver.MountOptions{Options: []string{"ro"}})
	must(t, err)
	if err := os.WriteFile(filepath.Join(root, "f"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only mount: %v", err)
	}
	must(t, d.Put("l"))
}
