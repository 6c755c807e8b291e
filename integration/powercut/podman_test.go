package powercut_test

import (
	"iter"
	"math"
	"os"
	"strconv"
	"testing"
	"time"
)

// cuts counts the rounds of a test on one filesystem: $POWERCUTS, or as long as its part of $SOAK is, else few, so that it is quick. There
// are more, up to four times as many, until something was acknowledged in half of them: a machine with much to do gets to less.
func cuts(t *testing.T, busy *int) iter.Seq[int] {
	t.Helper()
	n, end := 6, time.Time{}
	if testing.Short() {
		n = 2
	}
	if text := os.Getenv("POWERCUTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("POWERCUTS=%q is no number of rounds", text)
		}
	} else if long, err := time.ParseDuration(os.Getenv("SOAK")); err == nil {
		const tests = 4 // of this package, one after the other
		n, end = math.MaxInt, time.Now().Add(long/tests)
	}
	return func(yield func(int) bool) {
		enough := func(i int) bool { return i >= n && 2**busy >= n }
		for i := 0; !enough(i) && (end.IsZero() || time.Now().Before(end)); i++ {
			if i/4 >= n {
				t.Errorf("only in %d of %d rounds something was acknowledged", *busy, i)
				return
			}
			if !yield(i) {
				return
			}
		}
	}
}

func seed() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
}

// onBoth runs a test on the filesystems whose power can be cut.
func onBoth(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if privately(t) {
				f(t, kind)
			}
		})
	}
}

// Whatever podman had exited with status 0 from is there after a cut: pulls in parallel, tags, removals and containers. Pulls and tags
// do not overlap with containers on xfs; TestPodmanBesideContainers does that.
func TestPodman(t *testing.T) {
	onBoth(t, func(t *testing.T, kind string) {
		seed := seed()
		t.Logf("cuts on %s, SEED=%d", kind, seed)
		w := newWorld(t, kind, seed)
		for i := range cuts(t, &w.busy) {
			images := [][]step{w.imageSteps(w.images[:parallel], 8), w.imageSteps(w.images[parallel:], 8)}
			containers := w.containerSteps(8)
			switch {
			case kind == "ext4":
				w.round("cut", append(images, containers)...)
			case i%4 == 3:
				w.round("cut", containers)
			default:
				w.round("cut", images...)
			}
			w.look()
			if i%8 == 7 {
				w.storageCheck()
			}
			if t.Failed() {
				return
			}
		}
		w.storageCheck()
		w.report()
	})
}

// The same with SIGKILL for the programs that run, and the machine staying on.
func TestKill(t *testing.T) {
	onBoth(t, func(t *testing.T, kind string) {
		seed := seed()
		t.Logf("kills on %s, SEED=%d", kind, seed)
		w := newWorld(t, kind, seed)
		w.kills = true
		for range cuts(t, &w.busy) {
			w.round("kill", w.imageSteps(w.images[:parallel], 8), w.imageSteps(w.images[parallel:], 8), w.containerSteps(8))
			w.look()
			if t.Failed() {
				return
			}
		}
		w.storageCheck()
		w.report()
	})
}

// report says what was tried, and fails if that was too little.
func (w *world) report() {
	w.t.Helper()
	w.t.Logf("%d rounds, %d calls acknowledged, in %d rounds; opening took at most %v of processor time; %d newest records lost",
		w.rounds, w.acked, w.busy, w.slowest, w.lost)
	if w.busy == 0 {
		w.t.Errorf("in none of %d rounds anything was acknowledged", w.rounds)
	}
	if w.kills { // podman itself cannot remove a container whose shm it had mounted and not noted yet
		w.m.halt()
		w.boot()
	}
	w.m.must(w.call("rm", "--all", "--force", "--time=0"))
	w.m.must(w.call("rmi", "--all", "--force"))
	w.sound()
}
