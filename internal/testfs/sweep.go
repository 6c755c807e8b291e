package testfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Faults are what a disk may answer to any call that changes it.
var Faults = []syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EMLINK, unix.EXDEV, unix.EROFS}

// An Outcome is what came of a process that met trouble.
type Outcome struct {
	Trouble
	Calls []string
	Done  bool // the process reported success
}

// String names the trouble and the call that met it.
func (o Outcome) String() string {
	s := "no trouble"
	if o.At > 0 {
		s = fmt.Sprintf("killed before call %d", o.At)
	}
	if o.Errno != 0 {
		s = fmt.Sprintf("%s at call %d, %s", unix.ErrnoName(o.Errno), o.At, map[bool]string{true: "and all after it", false: "once"}[o.Times == 0])
	}
	if o.At > 0 && o.At <= len(o.Calls) {
		s += " (" + o.Calls[o.At-1] + ")"
	}
	return s
}

// Sweep has a change made again and again: without trouble, killed before each of its calls, and with each of them failing. once makes it
// in a place of its own, by RunTest, and looks at what is left. Without trouble the calls are those of testdata/name.trace.
//
// Under SOAK that is every call and every fault. Without, it is about few calls, evenly spread, one fault each; SEED says which, and as
// many seeds in a row as the log says go through all of them. The seed is the time if there is none.
func Sweep(t *testing.T, name string, few int, once func(Trouble) Outcome) {
	t.Helper()
	undisturbed := once(Trouble{})
	Golden(t, name, undisturbed.Trace())
	n := len(undisturbed.Calls)
	if n < 5 {
		t.Fatalf("only %d calls were seen", n)
	}
	stride, seed := 1, uint64(0)
	if os.Getenv("SOAK") == "" {
		stride = (n + few - 1) / few
		var err error
		if seed, err = strconv.ParseUint(os.Getenv("SEED"), 10, 64); err != nil {
			seed = uint64(time.Now().UnixMilli())
		}
	}
	t.Logf("%d calls; SEED=%d, and %d seeds go through all", n, seed, stride)
	round := int(seed / uint64(stride) % 1000)
	for at := 1 + int(seed%uint64(stride)); at <= n && !t.Failed(); at += stride {
		once(Trouble{At: at})
		for i := range Faults {
			if stride == 1 || i == (at+round)%len(Faults) {
				once(Trouble{At: at, Errno: Faults[i], Times: (at + i + round/len(Faults)) % 2})
			}
		}
	}
}

// statusMet is the status of a process whose error is that of its trouble.
const statusMet = 42

// errnoEnv holds the errno that a process of RunTest meets.
const errnoEnv = "TESTFS_ERRNO"

// RunTest runs a test of this program as a process that meets trouble, with more in its environment. There it makes one change between
// MeetTrouble and EndMet. Anything but success, the kill that was asked for or an error that matches the errno fails t.
func (tr Trouble) RunTest(t *testing.T, name string, env ...string) Outcome {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.count=1")
	cmd.Env = append(append(os.Environ(), env...), fmt.Sprint(errnoEnv, "=", int(tr.Errno)))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	calls, err := tr.Run(cmd)
	if strings.Contains(out.String(), ErrUnsupported.Error()) {
		t.Skipf("%s", out.Bytes())
	}
	o := Outcome{Trouble: tr, Calls: calls, Done: err == nil}
	met := tr.At > 0 && tr.At <= len(calls)
	var exit *exec.ExitError
	switch {
	case err == nil && (tr.Errno != 0 || !met):
	case errors.As(err, &exit) && met && exit.ExitCode() == map[bool]int{true: -1, false: statusMet}[tr.Errno == 0]:
	default:
		t.Errorf("%v: the process ended with %v: %s", o, err, bytes.TrimSpace(out.Bytes()))
	}
	return o
}

// EndMet ends a process of RunTest whose change failed with an error that matches the errno of its trouble.
func EndMet(err error) {
	if n, _ := strconv.Atoi(os.Getenv(errnoEnv)); n != 0 && errors.Is(err, syscall.Errno(n)) {
		os.Exit(statusMet)
	}
}
