package differential_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.podman.io/storage/pkg/reexec"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

var (
	seed   = flag.Uint64("seed", number64("SEED"), "first seed (default $SEED); 0 means 1, and the time of day under SOAK")
	number = flag.Int("n", int(number64("CHAINS")), "chains on each filesystem (default $CHAINS); 0 means as many as fit in the time")
	all    = flag.Bool("all", false, "go on after a difference, and show one chain for each kind")
	ours   = flag.String("driver", "ostree", "driver to compare with overlay")
)

// Chains are run for so long on each filesystem when -n is not given, and so many
// at least: with no seed given, other ones on each.
const (
	budget = 8 * time.Second
	least  = 30
)

// number64 reads a number from the environment, 0 if there is none.
func number64(name string) uint64 {
	n, _ := strconv.ParseUint(os.Getenv(name), 10, 64)
	return n
}

func TestMain(m *testing.M) {
	if reexec.Init() { // the overlay driver extracts in a child process
		return
	}
	logrus.SetLevel(logrus.FatalLevel)
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.NumCPU())); err != nil { // half of the time disks are waited for
		panic(err)
	}
	os.Exit(m.Run())
}

// TestChains is the harness: what it prints on failure is enough to run the one
// chain again.
func TestChains(t *testing.T) {
	first, length := *seed, budget
	if soak, err := time.ParseDuration(os.Getenv("SOAK")); err == nil {
		length = soak
		if first == 0 {
			first = uint64(time.Now().Unix()) << 20
		}
	}
	given := first != 0 || *number != 0
	each(t, func(t *testing.T, dir string) {
		end := time.Now().Add(length)
		p := opened(t, dir)
		first := max(first, 1)
		if !given {
			first += uint64(1000 * slices.Index(testfs.Kinds, filepath.Base(dir)))
		}
		for s := first; ; s++ {
			if n := s - first; *number > 0 && n >= uint64(*number) || *number == 0 && n >= least && time.Now().After(end) {
				break
			}
			runSeed(t, p, s)
			if t.Failed() && !*all {
				break
			}
			if (s-first)%50 == 49 {
				reopen(t, p)
			}
		}
		st := p.Stats
		t.Logf("seeds from %d: %d chains, %d layers, %d paths, %d steps compared; %d layers were refused by the oracle",
			first, st.Chains, st.Layers, st.Paths, st.Steps, st.Refused)
		if *number == 0 && (st.Paths < 1000 || st.Refused*3 > st.Layers) {
			t.Error("the harness compares too little to mean anything")
		}
	})
}

// each runs f on all kinds of filesystems at once, beside other tests: much of it
// is waiting.
func each(t *testing.T, f func(t *testing.T, dir string)) {
	t.Parallel()
	for _, kind := range testfs.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f(t, testfs.Mount(t, kind))
		})
	}
}

// opened is open for chains that damage nothing: in the end our repository is
// sound, for ourselves and for the real ostree.
func opened(t *testing.T, dir string, options ...string) *differential.Pair {
	t.Helper()
	repo := filepath.Join(dir, "ours", "root", "ostree", "repo")
	t.Cleanup(func() {
		if *ours != "ostree" {
			return
		}
		r, err := store.Open(repo)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		storetest.Check(t, r)
		if _, err := exec.LookPath("ostree"); err != nil {
			t.Logf("no check by the real ostree: %v", err)
			return
		}
		if out, err := exec.Command("ostree", "fsck", "--repo="+repo).CombinedOutput(); err != nil {
			t.Errorf("ostree fsck: %v: %s", err, out)
		}
	})
	return open(t, dir, options...)
}

func open(t *testing.T, dir string, options ...string) *differential.Pair {
	t.Helper()
	oracle, err := differential.OpenSide("overlay", "overlay", filepath.Join(dir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	our, err := differential.OpenSide("ours", *ours, filepath.Join(dir, "ours"), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range []*differential.Side{oracle, our} {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return &differential.Pair{Oracle: oracle, Ours: our, Keep: 6}
}

func reopen(t *testing.T, p *differential.Pair) {
	t.Helper()
	for _, s := range []*differential.Side{p.Oracle, p.Ours} {
		if err := s.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
}

func runSeed(t *testing.T, p *differential.Pair, seed uint64) {
	t.Helper()
	chain, features := differential.Generate(seed)
	diffs, err := p.Run(seed, chain)
	if err != nil {
		t.Fatalf("seed %d (%s): %v", seed, features, err)
	}
	if len(diffs) == 0 || *all && !isNew(diffs[0]) {
		return
	}
	small := differential.Shrink(p, seed, chain, diffs[0])
	t.Errorf("seed %d (%s):\n%s\nsmallest chain that shows it:\n%s\nagain: SEED=%d CHAINS=1 go test -count=1 ./integration/differential -run '%s'",
		seed, features, format(diffs), small, seed, t.Name())
}

// seen are the kinds of differences that were shown, with -all.
var seen sync.Map

func isNew(d differential.Difference) bool {
	_, old := seen.LoadOrStore(kindOf(d), true)
	return !old
}

func kindOf(d differential.Difference) string {
	where, _, _ := strings.Cut(d.Where, " ")
	if d.What == "outcome" {
		return where + d.Got[strings.LastIndexByte(d.Got, ':')+1:]
	}
	return where + " " + d.What
}

func format(diffs []differential.Difference) string {
	s := ""
	for i, d := range diffs {
		if i == 8 {
			return s + fmt.Sprintf("  and %d more\n", len(diffs)-i)
		}
		s += "  " + d.String() + "\n"
	}
	return s
}
