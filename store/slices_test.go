package store

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// sliced makes publishers let go of the lock between any two objects.
func sliced(t *testing.T) {
	wanted, unwanted := maxShared, maxUnwanted
	maxShared, maxUnwanted = 0, 0
	t.Cleanup(func() { maxShared, maxUnwanted = wanted, unwanted })
}

// TestB09PublishInSlices prunes, with ours and with libostree's, between any two objects of a publication: what was just
// published is garbage until the ref is there, and must be there then all the same.
func TestB09PublishInSlices(t *testing.T) {
	sliced(t)
	w := newWorld(t, testfs.Mount(t, "ext4"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var pruned int64
	var pruners sync.WaitGroup
	pruners.Go(func() {
		for ctx.Err() == nil {
			freed, err := w.repo.Prune(context.Background(), false)
			if err != nil {
				t.Error(err)
			}
			pruned += freed.Objects
		}
	})
	if ostree, err := exec.LookPath("ostree"); err == nil {
		pruners.Go(func() {
			for ctx.Err() == nil {
				if out, err := exec.Command(ostree, "prune", "--refs-only", "--repo", w.home+"/repo").CombinedOutput(); err != nil {
					t.Errorf("ostree prune: %v\n%s", err, out)
				}
			}
		})
	}
	files := pool(60)
	for i := range 12 {
		must(t, w.apply(fmt.Sprint("l", i), StageOptions{}, files...))
		w.check(fmt.Sprint("round ", i))
		must(t, w.reap(fmt.Sprint("l", i)))
	}
	cancel()
	pruners.Wait()
	if pruned == 0 {
		t.Error("nothing was pruned while it was published: this shows nothing")
	}
	w.exact(t, nil)
}

// TestCutPublishInSlices is TestCutPublish with the lock let go between any two objects.
func TestCutPublishInSlices(t *testing.T) {
	sliced(t)
	TestCutPublish(t)
}

// TestFairnessOfLargeLayers: with publishers of large layers back to back a deletion gets its turn, and beside deletions back to
// back a publisher does.
func TestFairnessOfLargeLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	top := testfs.Mount(t, "ext4")
	const limit = 200 * time.Millisecond
	var worst time.Duration
	for range 3 { // another program may have had the processor
		if worst = waitOfDeletion(t, top); worst < limit {
			break
		}
	}
	t.Logf("a deletion waited %v at most", worst)
	if worst >= limit {
		t.Errorf("a deletion waited %v for publishers of large layers", worst)
	}
	for range 3 {
		if worst = waitOfPublisher(t, top); worst < limit {
			break
		}
	}
	if worst >= limit {
		t.Errorf("a publisher waited %v for deletions", worst)
	}
}

// waitOfDeletion returns how long a deletion waited at worst.
func waitOfDeletion(t *testing.T, top string) (worst time.Duration) {
	w := newWorld(t, top)
	var publishers sync.WaitGroup
	done := make(chan struct{})
	for p := range 2 {
		files := make([]testFile, 10_000)
		for i := range files {
			files[i] = testFile{name: fmt.Sprintf("%d-%05d", p, i), body: fmt.Sprint(p, i), sec: 1}
		}
		publishers.Go(func() {
			if err := w.apply(fmt.Sprint("big", p), StageOptions{NoSync: true}, files...); err != nil {
				t.Error(err)
			}
		})
	}
	go func() { publishers.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return worst
		default:
		}
		begin := time.Now()
		unlock, err := w.repo.root.lockExclusive(context.Background())
		must(t, err)
		unlock()
		worst = max(worst, time.Since(begin))
		time.Sleep(time.Millisecond)
	}
}

// waitOfPublisher returns how long a publisher waited at worst while several deletions follow each other.
func waitOfPublisher(t *testing.T, top string) (worst time.Duration) {
	w := newWorld(t, top)
	ctx, cancel := context.WithCancel(context.Background())
	var deletions sync.WaitGroup
	for range 4 {
		deletions.Go(func() {
			for ctx.Err() == nil {
				unlock, err := w.repo.root.lockExclusive(ctx)
				if err != nil {
					return
				}
				time.Sleep(maxExclusive)
				unlock()
			}
		})
	}
	for range 20 {
		begin := time.Now()
		unlock, err := w.repo.root.lockShared(context.Background())
		must(t, err)
		unlock()
		worst = max(worst, time.Since(begin))
	}
	cancel()
	deletions.Wait()
	return worst
}
