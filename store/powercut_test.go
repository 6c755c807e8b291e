package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestPowerCut cuts the power of a filesystem at random moments while a process applies and removes layers. All that the
// process had acknowledged must be there, whole, and nothing may need more than opening.
func TestPowerCut(t *testing.T) {
	if home := os.Getenv("STORE_TEST_POWER"); home != "" {
		ackLayers(t, home)
		return
	}
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	cutPower(t, rounds, 5)
}

// TestSoak runs processes side by side and cuts the power, with other seeds each time, for as long as SOAK says.
func TestSoak(t *testing.T) {
	long, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Skip("SOAK is not set to a duration")
	}
	end := time.Now().Add(long)
	for round := 1; time.Now().Before(end) && !t.Failed(); round++ {
		t.Run(fmt.Sprint("processes/", round), func(t *testing.T) {
			processes(t, newWorld(t, testfs.Mount(t, testfs.Kinds[round%len(testfs.Kinds)])), 1000*round, 8, 40)
		})
		t.Run(fmt.Sprint("power/", round), func(t *testing.T) { cutPower(t, 40, uint64(round)) })
	}
}

func cutPower(t *testing.T, rounds int, seed uint64) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			top := testfs.Mount(t, kind)
			w := newWorld(t, top)
			rnd := rand.New(rand.NewPCG(seed, 6))
			acked, end := 0, time.Now().Add(time.Duration(rounds)*10*time.Second)
			for i := 0; i < rounds || acked < 2*rounds; i++ { // beside other work a round may end before anything was stored
				acked += cutOnce(t, w, top, i, time.Duration(100+rnd.IntN(300))*time.Millisecond)
				if t.Failed() {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("only %d layers were acknowledged in %d rounds", acked, i+1)
				}
			}
		})
	}
}

// ackLayers is the process whose power is cut. It says on its output what is stored and what is removed.
func ackLayers(t *testing.T, home string) {
	r, err := Open(home + "/repo")
	must(t, err)
	w := &world{t: t, home: home, repo: r}
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 9))
	files := pool(100)
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d", os.Getenv("STORE_TEST_ROUND"), i)
		w.alien = i%2 == 1
		if w.apply(id, StageOptions{}, some(rnd, files)...) != nil {
			return // the power is gone
		}
		fmt.Println("stored", id)
		if i%3 == 2 {
			id := fmt.Sprintf("%s-%d", os.Getenv("STORE_TEST_ROUND"), i-1)
			fmt.Println("removing", id)
			if w.reap(id) != nil {
				return
			}
		}
	}
}

// cutOnce lets the process run for a while, cuts the power, and looks at what is left. It returns how many layers were
// acknowledged.
func cutOnce(t *testing.T, w *world, top string, round int, after time.Duration) int {
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$")
	cmd.Env = append(os.Environ(), "STORE_TEST_POWER="+w.home, fmt.Sprintf("STORE_TEST_ROUND=r%d", round))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	stored := map[string]bool{}
	cut := make(chan error, 1)
	go func() {
		time.Sleep(after)
		cut <- testfs.Shutdown(top)
	}()
	count := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch verb, id, _ := strings.Cut(lines.Text(), " "); verb {
		case "stored":
			stored[id] = true
			count++
		case "removing":
			delete(stored, id) // it may be there or not
		}
	}
	must(t, <-cut)
	cmd.Wait()
	must(t, w.repo.Close())
	must(t, testfs.Remount(top))
	r, err := Open(w.home + "/repo")
	must(t, err)
	w.repo = r
	begin := processorTime()
	_, err = r.Recover(context.Background())
	must(t, err)
	if d := processorTime() - begin; d > time.Second {
		t.Errorf("recovery took %v of processor time", d)
	}
	w.check(fmt.Sprintf("after cut %d", round))
	for id := range stored {
		if _, err := r.Ref("layer/" + id); err != nil {
			t.Errorf("acknowledged: %v", err)
		}
		l, err := mapInodes(w.home + "/" + id + "/inodes")
		if err != nil {
			t.Errorf("acknowledged: %v", err)
			continue
		}
		l.Close()
		must(t, w.reap(id))
	}
	// What was not acknowledged is old or new, and goes as well.
	refs, err := r.Refs("layer")
	must(t, err)
	for ref := range refs {
		id := strings.TrimPrefix(ref, "layer/")
		if err := w.reap(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		must(t, r.DeleteRef(ref))
	}
	_, err = r.Prune(context.Background(), false)
	must(t, err)
	w.check("emptied")
	return count
}

// processorTime is what this process has used so far: whatever else the machine does, it does not count.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
