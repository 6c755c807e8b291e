package driver_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestWithoutLocks calls what containers/storage calls without any lock while layers come and go: CRI-O's statistics and podman's
// inspect do that, and other programs close the store meanwhile.
func TestWithoutLocks(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	b, _ := ownersTar(t)
	apply(t, d, "img", "", b)
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
				if w == 0 {
					gone(d.Cleanup())
				}
			}
		}()
	}
	for w := range 3 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range 10 {
				life(t, d, fmt.Sprintf("c%d", w), fmt.Sprintf("l%d-%d", w, i), b)
			}
		}()
	}
	workers.Wait()
	close(stop)
	watchers.Wait()
	checkStore(t, dir)
	if ids, err := d.ListLayers(); err != nil || len(ids) != 1 {
		t.Errorf("layers %q are left, %v", ids, err)
	}
}

// life makes, uses and removes a container, and a layer that is staged beside it.
func life(t *testing.T, d *driver.Driver, ctr, layer string, b []byte) {
	fail := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	fail(d.CreateReadWrite(ctr, "img", nil))
	root, err := d.Get(ctr, driver.MountOptions{})
	fail(err)
	f, err := os.Open(root) // keeps the mount from a Cleanup in between
	fail(err)
	s, err := d.StageDiff("img", driver.ApplyOptions{Diff: bytes.NewReader(b)})
	if err != nil {
		t.Error(err)
		return
	}
	fail(d.Create(layer, "img", nil))
	fail(d.CommitStaged(layer, s.Path))
	fail(s.Close())
	fail(f.Close())
	fail(d.Put(ctr))
	fail(d.Remove(ctr))
	fail(d.Remove(layer))
}
