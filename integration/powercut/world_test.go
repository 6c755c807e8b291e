package powercut_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// A world is a store on a filesystem of its own, and what must be in it.
type world struct {
	t      *testing.T
	top    string
	store  *programs.Store
	podman programs.Program
	legacy programs.Program
	base   fixtures.Image
	images []fixtures.Image
	things map[string]*thing // by name: "image3", "container5"
	rnd    *rand.Rand
	boots  int
	m      *machine
	next   int // number of the next container

	acked, rounds, busy int // calls; rounds; rounds in which a change was acknowledged
	slowest             time.Duration
	kills               bool // what podman had mounted, and had not noted, stays mounted until the next boot
	weak                bool // the newest records may be lost
	lost                int
}

// A thing is an image or a container. Its state is "" while it does not exist, else its names, sorted; one without a name is "-".
type thing struct {
	now    string
	past   []string // other states that it may be in after the end of this round
	killed bool     // in the middle of what a container is
	older  []string // states that it may have fallen back to where the newest records may be lost
}

// A step is a call and what it does to a thing.
type step struct {
	call
	what    string // "" if it changes nothing for good
	to      string
	between []string // what may be seen of it while it is not done
}

const parallel = 3 // images for each worker

func newWorld(t *testing.T, kind string, seed uint64) *world {
	t.Helper()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	memory, err := os.MkdirTemp("", "cut") // podman takes no run directory of more than 50 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(memory) })
	if err := unix.Mount("none", memory, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(memory, unix.MNT_DETACH) })
	w := &world{
		t: t, podman: podman, legacy: programs.Find(t, "containers-storage-legacy"), base: set.Need(t, "busybox"),
		top: testfs.Mount(t, kind), things: map[string]*thing{}, rnd: rand.New(rand.NewPCG(seed, 8)),
	}
	w.store = programs.NewStore(t, filepath.Join(memory, "s"), "ostree")
	w.store.Root = filepath.Join(w.top, "root") // all else is in memory, as on a real machine
	w.store.Options = []string{"pinned_store=none"}
	w.store.FsckOnly = true
	w.images = writeImages(t, filepath.Join(memory, "images"), w.base, 2*parallel)
	for _, i := range w.images {
		w.things[i.Name] = &thing{}
	}
	t.Cleanup(func() {
		if w.m != nil {
			w.m.halt()
		}
		removeGroups(groupOf(t))
	})
	w.boot()
	w.m.must(w.pull(w.base))
	return w
}

// boot starts the machine.
func (w *world) boot() {
	w.t.Helper()
	w.boots++
	w.m = boot(w.t, w.store.RunRoot, bootID(w.boots))
}

// call is a call of podman.
func (w *world) call(args ...string) call {
	c := w.store.Call(w.podman, args...)
	return call{Path: c.Path, Args: c.Args, Env: c.Env}
}

func (w *world) pull(i fixtures.Image) call {
	c := w.call("pull", "--quiet", "oci:"+i.Name)
	c.Dir = filepath.Dir(i.Layout)
	return c
}

// groupOf names the control group of a test's containers.
func groupOf(t *testing.T) string { return fmt.Sprintf("ostree-powercut-%d", os.Getpid()) }

// removeGroups removes the control groups of containers that a cut has ended, whose processes may take a moment to be gone.
func removeGroups(name string) {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, top := range append(tops, "/sys/fs/cgroup/"+name) {
		for range 20 {
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, d := range slices.Backward(dirs) {
				_ = unix.Rmdir(d)
			}
			if unix.Access(top, unix.F_OK) != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// imageSteps draws what one worker does to its images, as if nothing would go wrong.
func (w *world) imageSteps(images []fixtures.Image, n int) []step {
	state := map[string]string{}
	for _, i := range images {
		state[i.Name] = w.things[i.Name].now
	}
	var list []step
	for range n {
		i := images[w.rnd.IntN(len(images))]
		plain := i.Ref()
		tag := "localhost/" + i.Name + ":tag"
		s := step{what: i.Name}
		switch now := state[i.Name]; {
		case !strings.Contains(now, plain):
			s.call, s.to, s.between = w.pull(i), names(now, plain), []string{names(now, "-")}
		case !strings.Contains(now, tag):
			s.call, s.to = w.call("tag", i.ID, tag), names(now, tag)
		case w.rnd.IntN(2) == 0:
			s.call, s.to = w.call("untag", i.ID, tag), plain
		default:
			s.call, s.to, s.between = w.call("rmi", "--force", i.ID), "", []string{"-", plain, tag}
		}
		state[i.Name] = s.to
		list = append(list, s)
	}
	return list
}

// names adds a name to a state. "-" stands for no name.
func names(state, name string) string {
	list := strings.Fields(strings.ReplaceAll(state, "-", " "))
	if name != "-" {
		list = append(list, name)
	}
	if len(list) == 0 {
		return "-"
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), " ")
}

// containerSteps draws what the worker does that has containers.
func (w *world) containerSteps(n int) []step {
	var have []string
	for name, th := range w.things {
		if strings.HasPrefix(name, "container") && th.now != "" && !th.killed {
			have = append(have, name)
		}
	}
	slices.Sort(have)
	var list []step
	for range n {
		w.next++
		name := fmt.Sprintf("container%d", w.next)
		run := []string{"--network=none", "--cgroup-parent=/" + groupOf(w.t), "--name=" + name, w.base.ID, "/bin/busybox", "true"}
		switch k := w.rnd.IntN(4); {
		case len(have) > 2 || k == 0 && len(have) > 0:
			list = append(list, step{call: w.call("rm", "--force", "--time=0", have[0]), what: have[0], to: ""})
			have = have[1:]
		case k == 1:
			list = append(list, step{call: w.call(append([]string{"create"}, run...)...), what: name, to: name})
			have = append(have, name)
		default: // it may be there after a cut, and not after its end
			list = append(list, step{call: w.call(append([]string{"run", "--rm"}, run...)...), what: name, to: "", between: []string{name}})
		}
		w.things[list[len(list)-1].what] = w.thing(list[len(list)-1].what)
	}
	return list
}

func (w *world) thing(name string) *thing {
	if w.things[name] == nil {
		w.things[name] = &thing{}
	}
	return w.things[name]
}

// round runs steps side by side, ends them, and notes what must be true from then on.
func (w *world) round(end string, lists ...[]step) {
	w.t.Helper()
	r := request{End: end, Top: w.top}
	draw(w.rnd, &r)
	for _, l := range lists {
		var calls []call
		for _, s := range l {
			calls = append(calls, s.call)
		}
		r.Work = append(r.Work, calls)
	}
	w.m.send(r)
	before := w.acked
	for {
		a := w.m.receive()
		if a.Over {
			break
		}
		s := lists[a.Worker][a.Call]
		th := w.thing(s.what)
		switch {
		case a.Failed != "" || a.Code != 0:
			w.t.Fatalf("with the power on: podman %s\nexit status %d\n%s", strings.Join(s.Args, " "), a.Code, a.Failed)
		case a.Began:
			th.past = append(append(th.past, s.to), s.between...)
		case a.Acked:
			w.acked++
			if w.weak {
				th.older = append(th.older, th.now)
			} else {
				th.past = nil
			}
			th.now = s.to
		}
	}
	w.rounds++
	if w.acked > before {
		w.busy++
	}
	if end == "cut" {
		w.m.halt()
		w.m = nil
		if err := testfs.Remount(w.top); err != nil {
			w.t.Fatal(err)
		}
		w.boot()
	}
}

// look is the first that happens after a cut: podman opens the store and must find all that was acknowledged.
func (w *world) look() {
	w.t.Helper()
	first := w.m.must(w.call("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"))
	w.slowest = max(w.slowest, first.CPU)
	if first.CPU > time.Second {
		w.t.Errorf("opening the store took %v of processor time", first.CPU)
	}
	seen := map[string]string{}
	for line := range strings.Lines(first.Out) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, i := range w.images {
			if id == "sha256:"+i.ID {
				seen[i.Name] = names(seen[i.Name], strings.Replace(name, "<none>:<none>", "-", 1))
			}
		}
	}
	if !strings.Contains(first.Out, w.base.ID) {
		w.t.Errorf("the image that was there all the time is gone:\n%s", first.Out)
	}
	for line := range strings.Lines(w.m.must(w.call("ps", "--all", "--format", "{{.Names}}")).Out) {
		seen[strings.TrimSpace(line)] = strings.TrimSpace(line)
	}
	for name, th := range w.things { // the container "mounted" is none
		switch now := seen[name]; {
		case now == th.now, th.killed && now == "": // its monitor lives, and removes it at last
		case slices.Contains(th.past, now):
			th.killed = th.killed || w.kills
		case slices.Contains(th.older, now):
			w.lost++
		default:
			w.t.Errorf("round %d: %s is %q, must be %q or one of %q\n%s", w.rounds, name, now, th.now, slices.Concat(th.past, th.older), first.Out)
		}
		th.now, th.past, th.older = seen[name], nil, nil
		if th.now == "" && strings.HasPrefix(name, "container") {
			delete(w.things, name)
		}
	}
	w.sound()
}

// sound checks all that is stored.
func (w *world) sound() {
	w.t.Helper()
	soundHome(w.t, w.store.Home())
	if w.t.Failed() {
		w.t.Fatalf("that was found after round %d", w.rounds)
	}
}

// storageCheck has containers/storage compare every image with its digests.
func (w *world) storageCheck() {
	w.t.Helper()
	c := w.store.Call(w.legacy, "check")
	w.m.must(call{Path: c.Path, Args: c.Args, Env: c.Env})
}
