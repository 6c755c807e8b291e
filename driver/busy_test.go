package driver_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestWithoutLocks calls what containers/storage calls without any lock while layers come and go: CRI-O's statistics and podman's
// inspect do that, and other programs close the store meanwhile, so that containers/storage takes another driver.
func TestWithoutLocks(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	var newest atomic.Pointer[driver.Driver]
	newest.Store(open(t, dir))
	b, _ := ownersTar(t)
	apply(t, newest.Load(), "img", "", b)
	stop := make(chan struct{})
	var watchers, workers sync.WaitGroup
	gone := func(err error) {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
	for w := range 3 {
		watchers.Add(1)
		go func() {
			defer watchers.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				d := newest.Load()
				id := fmt.Sprintf("c%d", i%3)
				_, err := d.Metadata(id)
				gone(err)
				_, err = d.ReadWriteDiskUsage(id)
				gone(err)
				d.Exists(id)
				d.Status()
				d.AdditionalImageStores()
				_, err = d.ListLayers()
				gone(err)
				switch w {
				case 0:
					gone(d.Cleanup())
				case 1:
					next, err := driver.New(home(dir), options(dir))
					if err != nil {
						t.Error(err)
						return
					}
					newest.Store(next)
				}
			}
		}()
	}
	for w := range 3 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range 10 {
				life(t, newest.Load, fmt.Sprintf("c%d", w), fmt.Sprintf("l%d-%d", w, i), b)
			}
		}()
	}
	workers.Wait()
	close(stop)
	watchers.Wait()
	checkStore(t, dir)
	if ids, err := newest.Load().ListLayers(); err != nil || len(ids) != 1 {
		t.Errorf("layers %q are left, %v", ids, err)
	}
	must(t, newest.Load().Cleanup())
	wantReleased(t, dir)
}

// life makes, uses and removes a container, and a layer that is staged beside it.
func life(t *testing.T, newest func() *driver.Driver, ctr, layer string, b []byte) {
	fail := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	fail(newest().CreateReadWrite(ctr, "img", nil))
	root, err := newest().Get(ctr, driver.MountOptions{})
	fail(err)
	f, err := os.Open(root) // keeps the mount from a Cleanup in between
	fail(err)
	d := newest() // that has the stage
	s, err := d.StageDiff("img", driver.ApplyOptions{Diff: bytes.NewReader(b)})
	if err != nil {
		t.Error(err)
		return
	}
	fail(d.Create(layer, "img", nil))
	fail(d.CommitStaged(layer, s.Path))
	fail(s.Close())
	fail(f.Close())
	fail(newest().Put(ctr))
	fail(newest().Remove(ctr))
	fail(newest().Remove(layer))
}
