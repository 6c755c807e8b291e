package testfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestSweepGoesThroughAll: the seeds that a sweep names kill at every call; six times as many let every call fail with every errno, and
// SOAK does that at once.
func TestSweepGoesThroughAll(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("testdata", 0o700); err != nil {
		t.Fatal(err)
	}
	const calls, few = 23, 5
	var made []string
	for i := range calls {
		made = append(made, fmt.Sprintf("mkdir %d", i))
	}
	killed, failed := map[int]int{}, map[string]int{}
	sweep := func() {
		testfs.Sweep(t, "sweep", few, func(tr testfs.Trouble) testfs.Outcome {
			switch {
			case tr.At > 0 && tr.Errno == 0:
				killed[tr.At]++
			case tr.At > 0:
				failed[fmt.Sprint(tr.At, tr.Errno)]++
			}
			return testfs.Outcome{Trouble: tr, Calls: made}
		})
	}
	t.Setenv("SOAK", "")
	t.Setenv("REWRITE", "1")
	sweep()
	t.Setenv("REWRITE", "")
	clear(killed)
	clear(failed)
	const stride = (calls + few - 1) / few
	for seed := range stride * len(testfs.Faults) {
		t.Setenv("SEED", fmt.Sprint(1000+seed))
		before := len(failed)
		sweep()
		if n := len(failed) - before; n < few-1 || n > few {
			t.Errorf("a sweep of %d calls met %d faults", few, n)
		}
		if seed == stride-1 && len(killed) != calls {
			t.Errorf("%d seeds killed at %d of %d calls", stride, len(killed), calls)
		}
	}
	if want := calls * len(testfs.Faults); len(failed) != want {
		t.Errorf("%d of %d faults were met", len(failed), want)
	}
	clear(killed)
	clear(failed)
	t.Setenv("SOAK", "1s")
	sweep()
	if len(killed) != calls || len(failed) != calls*len(testfs.Faults) {
		t.Errorf("under SOAK %d kills and %d faults", len(killed), len(failed))
	}
}

// A trace is the same whatever names were made up, and in whatever order threads came; where a call leaves its place it stays.
func TestTrace(t *testing.T) {
	trace := func(calls ...string) []string {
		return testfs.Outcome{Trouble: testfs.Trouble{Below: "/x/home"}, Calls: calls}.Trace()
	}
	const a, b = "318474d0-158e-4358-a3a0-e5653b0268d2-ea6db1658cfe5a58", "418474d0-158e-4358-a3a0-e5653b0268d2-21b485ae63b45bf2"
	one := trace("mkdir r/staging/"+a, "create r/staging/"+a+"/x", "link /x/from -> r/staging/"+a+"/y", "syncfs r/staging/"+a,
		"rename r/staging/"+a+"/x -> refs/x", "remove z", "remove y", "create .json123456", "sync /x/home")
	two := trace("mkdir r/staging/"+b, "link /x/from -> r/staging/"+b+"/y", "create r/staging/"+b+"/x", "syncfs r/staging/"+b,
		"rename r/staging/"+b+"/x -> refs/x", "remove y", "remove z", "create .json6543210", "sync /x/home")
	want := []string{"mkdir r/staging/<name>", "create r/staging/<name>/x", "link ../from -> r/staging/<name>/y", "syncfs r/staging/<name>",
		"rename r/staging/<name>/x -> refs/x", "remove y", "remove z", "create .json<number>", "sync ."}
	if !slices.Equal(one, two) || !slices.Equal(one, want) {
		t.Errorf("%q\n%q\nwant %q", one, two, want)
	}
	early := trace("link r/staging/"+a+"/x -> refs/x", "syncfs r/staging/"+a)
	late := trace("syncfs r/staging/"+a, "link r/staging/"+a+"/x -> refs/x")
	if slices.Equal(early, late) {
		t.Errorf("a name before its sync and after it are both %q", early)
	}
}

// TestRunTest tells the ends of a process apart: done, killed, failed as its disk did, failed otherwise.
func TestRunTest(t *testing.T) {
	if dir := os.Getenv("RUNTEST_DIR"); dir != "" {
		if err := testfs.MeetTrouble(); err != nil {
			t.Fatal(err)
		}
		err := os.Mkdir(filepath.Join(dir, "made"), 0o700)
		testfs.EndMet(err)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, tr := range []testfs.Trouble{{}, {At: 1}, {At: 1, Errno: syscall.EROFS}, {At: 2, Errno: syscall.EROFS}} {
		tr.Below = t.TempDir()
		o := tr.RunTest(t, "TestRunTest", "RUNTEST_DIR="+tr.Below)
		_, err := os.Stat(filepath.Join(tr.Below, "made"))
		if want := tr.At != 1; o.Done != want || (err == nil) != want || len(o.Calls) != 1 {
			t.Errorf("%v: done %v, calls %q, then %v", o, o.Done, o.Calls, err)
		}
	}
}
