package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// turnWithin is how long anybody waits for a turn, whoever else comes back to back.
const turnWithin = 200 * time.Millisecond

// slowestLock is the longest of ten waits for a lock. Of several such series it is that of the best: who is starved is so in each of them,
// and whom another program kept from the processor is not.
func slowestLock(t *testing.T, within time.Duration, lock func(context.Context) (func(), error)) time.Duration {
	t.Helper()
	best := time.Hour
	for i := 0; i < 5 && best > within; i++ {
		var worst time.Duration
		for range 10 {
			begin := time.Now()
			unlock, err := lock(context.Background())
			must(t, err)
			unlock()
			worst = max(worst, time.Since(begin))
			time.Sleep(5 * time.Millisecond)
		}
		best = min(best, worst)
	}
	return best
}

// TestFairness keeps publishers coming back to back, and wants a deletion to get its turn, and the other way round.
func TestFairness(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	at := w.repo.root
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hold := func(lock func(context.Context) (func(), error), long time.Duration) func() {
		return func() {
			for ctx.Err() == nil {
				unlock, err := lock(ctx)
				if err != nil {
					return
				}
				time.Sleep(long)
				unlock()
			}
		}
	}
	slowest := func(lock func(context.Context) (func(), error)) time.Duration {
		return slowestLock(t, turnWithin, lock)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(hold(at.lockShared, 20*time.Millisecond))
	}
	if worst := slowest(at.lockExclusive); worst > turnWithin {
		t.Errorf("a deletion waited %v for publishers", worst)
	}
	cancel()
	wg.Wait()
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			unlock, err := at.lockExclusive(ctx)
			if err != nil {
				return
			}
			time.Sleep(maxExclusive)
			unlock()
			time.Sleep(pause)
		}
	})
	if worst := slowest(at.lockShared); worst > turnWithin {
		t.Errorf("a publisher waited %v for a deletion", worst)
	}
	cancel()
	wg.Wait()
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	unlock, err := at.lockExclusive(context.Background())
	must(t, err)
	defer unlock()
	if _, err := at.lockShared(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait that was called off: %v", err)
	}
}

// TestFairnessBesideOstree has the real ostree commit back to back in several processes. They know no gate, and look for a lock once a
// second: a deletion gets in when those that overlap have ended, and they do, each of them and before they give up, beside deletions back to back.
func TestFairnessBesideOstree(t *testing.T) {
	if _, err := exec.LookPath("ostree"); err != nil {
		t.Skip("the ostree program is not installed")
	}
	w := newWorld(t, testfs.Mount(t, "ext4"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const committers = 3
	var commits [committers]atomic.Int64
	fewest := func() int64 {
		least := commits[0].Load()
		for n := range commits {
			least = min(least, commits[n].Load())
		}
		return least
	}
	var longest atomic.Int64
	var wg sync.WaitGroup
	for n := range committers {
		in := filepath.Join(w.home, fmt.Sprint("in", n))
		must(t, os.Mkdir(in, 0o755))
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				for f := range 30 {
					must(t, os.WriteFile(filepath.Join(in, fmt.Sprint(f)), []byte(fmt.Sprint(n, i, f)), 0o644))
				}
				begin := time.Now()
				if out, err := exec.Command("ostree", "commit", "--repo="+w.home+"/repo", "-b", fmt.Sprint("theirs", n), in).CombinedOutput(); err != nil {
					t.Errorf("ostree commit: %v: %s", err, out)
					return
				}
				longest.Store(max(longest.Load(), int64(time.Since(begin))))
				commits[n].Add(1)
			}
		})
	}
	for fewest() < 2 && !t.Failed() { // how long one takes here and now
		time.Sleep(10 * time.Millisecond)
	}
	within := turnWithin + committers*time.Duration(longest.Load())
	if worst := slowestLock(t, within, w.repo.root.lockExclusive); worst > within {
		t.Errorf("a deletion waited %v for commits of at most %v", worst, time.Duration(longest.Load()))
	} else {
		t.Logf("a deletion waited at most %v for commits of at most %v", worst, time.Duration(longest.Load()))
	}
	begin, deletions := time.Now(), 0
	var before [committers]int64
	for n := range commits {
		before[n] = commits[n].Load() + 1 // the one under way may have had the lock already
	}
	passed := func() bool {
		for n := range commits {
			if commits[n].Load() <= before[n] {
				return false
			}
		}
		return true
	}
	for ; time.Since(begin) < 2*time.Minute && !passed() && !t.Failed(); deletions++ {
		unlock, err := w.repo.root.lockExclusive(ctx)
		must(t, err)
		time.Sleep(maxExclusive)
		unlock()
	}
	if !passed() {
		t.Errorf("beside %d deletions back to back not each of %d programs made a commit", deletions, committers)
	} else {
		t.Logf("beside %d deletions back to back each of %d programs made a commit in %v", deletions, committers, time.Since(begin))
	}
	cancel()
	wg.Wait()
	w.check("at the end")
}
