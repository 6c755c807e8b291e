package powercut_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// What the host asks of the machine that is going to lose its power, one line of JSON each.
type request struct {
	Run  *call    `json:",omitempty"` // run this and say what came of it
	Work [][]call `json:",omitempty"` // run these lists side by side
	Acks int      // how many of Work are waited for before the end
	Wait float64  // how long then, in parts of what one call of Work took so far
	End  string   // "cut", "kill" or "" (when all is done)
	Top  string   // of the filesystem
}

// A call is a program with its arguments.
type call struct {
	Path string
	Args []string
	Env  []string
	Dir  string
}

// What the machine answers. An answer with Acked or Began is about one call of Work; Over comes when Work has ended.
type answer struct {
	Worker, Call int
	Began, Acked bool
	Failed       string // what a call said that failed while the power was on
	Over         bool
	Out          string
	Code         int
	Wall, CPU    time.Duration
}

const guestVariable = "OSTREE_TEST_GUEST"

// TestGuest is what runs in a machine whose power is cut, between the programs and the host.
func TestGuest(t *testing.T) {
	if os.Getenv(guestVariable) == "" {
		t.Skip("this is a part of the other tests, which run it in namespaces of their own")
	}
	g := &guest{out: json.NewEncoder(os.NewFile(3, "answers"))}
	for in := json.NewDecoder(os.Stdin); ; {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if r.Run != nil {
			a, _ := run(*r.Run, nil)
			g.say(a)
			continue
		}
		if err := g.work(&r); err != nil {
			t.Fatal(err)
		}
	}
}

type guest struct {
	mu      sync.Mutex // held while the power goes, so that no acknowledgement comes after it
	out     *json.Encoder
	off     bool
	running map[*exec.Cmd]bool
	acks    int
	took    time.Duration // by calls that ended
	ended   int
	enough  chan struct{}
}

func (g *guest) say(a answer) {
	if err := g.out.Encode(a); err != nil {
		panic(err)
	}
}

// work runs the lists, and ends them as the host asks.
func (g *guest) work(r *request) error {
	g.off, g.acks, g.running, g.enough = false, 0, map[*exec.Cmd]bool{}, make(chan struct{})
	if r.Acks == 0 {
		close(g.enough)
	}
	var workers sync.WaitGroup
	done := make(chan struct{})
	for w, list := range r.Work {
		workers.Go(func() {
			for i, c := range list {
				if !g.one(r, w, i, c) {
					return
				}
			}
		})
	}
	go func() { workers.Wait(); close(done) }()
	err := g.end(r, done)
	if r.End != "cut" { // without power there is nobody to wait for: the host ends them all
		<-done
	}
	g.say(answer{Over: true})
	return err
}

// one runs a call, and reports whether the next may follow.
func (g *guest) one(r *request, w, i int, c call) bool {
	a, err := run(c, func(cmd *exec.Cmd) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.off {
			return errors.New("no power")
		}
		g.say(answer{Worker: w, Call: i, Began: true})
		if err := cmd.Start(); err != nil {
			return err
		}
		g.running[cmd] = true
		return nil
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.off {
		return false
	}
	if err != nil || a.Code != 0 {
		g.say(answer{Worker: w, Call: i, Failed: a.Out, Code: a.Code})
		return false
	}
	g.took, g.ended = g.took+a.Wall, g.ended+1
	g.say(answer{Worker: w, Call: i, Acked: true})
	if g.acks++; g.acks == r.Acks {
		close(g.enough)
	}
	return true
}

// end waits for the acknowledgements, then for a part of what a call takes, and ends everything.
func (g *guest) end(r *request, done chan struct{}) error {
	if r.End == "" {
		<-done
		return nil
	}
	select {
	case <-g.enough:
	case <-done:
	}
	g.mu.Lock()
	wait := 200 * time.Millisecond
	if g.ended > 0 {
		wait = g.took / time.Duration(g.ended)
	}
	g.mu.Unlock()
	select {
	case <-time.After(time.Duration(r.Wait * float64(wait))):
	case <-done:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.off = true
	if r.End == "cut" {
		return testfs.Shutdown(r.Top)
	}
	for cmd := range g.running {
		_ = unix.Kill(cmd.Process.Pid, unix.SIGKILL) // has ended otherwise
	}
	return nil
}

// run runs a call to its end.
func run(c call, start func(*exec.Cmd) error) (answer, error) {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second // monitors of containers may inherit the pipes
	if start == nil {
		start = (*exec.Cmd).Start
	}
	began := time.Now()
	if err := start(cmd); err != nil {
		return answer{Out: err.Error(), Code: -1}, err
	}
	err := cmd.Wait()
	a := answer{Out: out.String(), Code: cmd.ProcessState.ExitCode(), Wall: time.Since(began)}
	a.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil && a.Code == 0 { // the pipes were held, all else is well
		err = nil
	}
	return a, err
}

// draw gives how a round ends: mostly after one to four acknowledgements, at a random moment of the next call.
func draw(rnd *rand.Rand, r *request) {
	r.Acks, r.Wait = rnd.IntN(5), rnd.Float64()*1.5
}
