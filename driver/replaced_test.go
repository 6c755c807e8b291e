package driver_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// held lists what this process holds open below a directory.
func held(t *testing.T, dir string) (paths []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(path, dir+"/") {
			paths = append(paths, path)
		}
	}
	b, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, dir+"/") {
			paths = append(paths, "mapped: "+line)
		}
	}
	return paths
}

// wantReleased fails if something below a directory stays open. A removal keeps its turn for a moment.
func wantReleased(t *testing.T, dir string) {
	t.Helper()
	var paths []string
	for range 500 {
		if paths = held(t, dir); len(paths) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d are open, %q among them", len(paths), paths[:min(20, len(paths))])
}

// withoutCollector has nothing closed because nobody refers to it any more.
func withoutCollector(t *testing.T) {
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
}

// TestReplacedDriversHoldNothing takes another driver a thousand times, as a long-running program does beside others that come and go.
// Nobody cleans the old ones up, and some are used on: containers/storage keeps the first for read-only stores.
func TestReplacedDriversHoldNothing(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	b, _ := ownersTar(t)
	apply(t, first, "img", "", b)
	withoutCollector(t)
	routines := runtime.NumGoroutine()
	last := first
	for i := range 1000 {
		next, err := driver.New(home(dir), options(dir))
		must(t, err)
		for _, d := range []*driver.Driver{next, last, first}[:1+2*max(0, 1-i%10)] {
			if !d.Exists("img") {
				t.Fatal("the layer is not there")
			}
		}
		last = next
	}
	must(t, last.Cleanup())
	wantReleased(t, dir)
	if n := runtime.NumGoroutine(); n > routines {
		t.Errorf("%d goroutines, and %d before", n, routines)
	}
}

// TestReplacedInUse has another driver take the place of one that still has a stage, a tar that is read, the second half of a removal
// and a mount. All of it comes to its end, the new one undoes what the old one mounted, and nothing stays open.
func TestReplacedInUse(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	b, _ := ownersTar(t)
	withoutCollector(t)
	old := open(t, dir)
	apply(t, old, "img", "", b)
	apply(t, old, "other", "", b)
	apply(t, old, "going", "", b)
	must(t, old.CreateReadWrite("ctr", "img", nil))
	root, err := old.Get("ctr", driver.MountOptions{})
	must(t, err)
	staged, err := old.StageDiff("img", driver.ApplyOptions{Diff: bytes.NewReader(b)})
	must(t, err)
	tar, err := old.Diff("ctr", driver.Mappings{}, "other", driver.Mappings{}, "")
	must(t, err)
	files, err := old.DiffGetter("img")
	must(t, err)
	remove, err := old.DeferredRemove("going")
	must(t, err)

	d := open(t, dir)
	must(t, d.Cleanup())
	if mounted, err := overlay.Mounted(root); err != nil || mounted {
		t.Errorf("what the old driver mounted is mounted after the new one's Cleanup: %t, %v", mounted, err)
	}
	must(t, old.Create("layer", "img", nil))
	must(t, old.CommitStaged("layer", staged.Path))
	must(t, staged.Close())
	must(t, remove())
	if b, err := io.ReadAll(tar); err != nil || len(b) == 0 {
		t.Errorf("the tar that was begun before: %d bytes, %v", len(b), err)
	}
	must(t, tar.Close())
	f, err := files.Get("root")
	must(t, err)
	if b, err := io.ReadAll(f); err != nil || string(b) != strings.Repeat("r", 4096) {
		t.Errorf("a file of the layer: %d bytes, %v", len(b), err)
	}
	must(t, f.Close())
	must(t, files.Close())

	must(t, d.Cleanup())
	wantReleased(t, dir)
	for _, empty := range []string{"root/ostree/repo/extensions/ostree-storage/staging", "root/ostree/repo/extensions/ostree-storage/trash", "run/ostree/views"} {
		if left, err := os.ReadDir(filepath.Join(dir, empty)); err != nil || len(left) > 0 {
			t.Errorf("%s has %v, %v", empty, left, err)
		}
	}
	checkStore(t, dir)
}

// TestViewsAreNotStale makes views while others open the store, who look for those that dead processes left.
func TestViewsAreNotStale(t *testing.T) {
	d := open(t, t.TempDir())
	stop := make(chan struct{})
	var others, makers sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					d.RemoveStaleViews()
				}
			}
		})
		makers.Go(func() {
			for range 2000 {
				if err := d.View(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	makers.Wait()
	close(stop)
	others.Wait()
}
