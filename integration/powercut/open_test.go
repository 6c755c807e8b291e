package powercut_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	storage "go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
	_ "github.com/ostree-storage/ostree-storage/plugin" // the driver
	"github.com/ostree-storage/ostree-storage/store"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// A daemon is what a process does that keeps the store open, and has a container mounted.
type daemon struct {
	Top   string
	Run   string // its run directory, which it does not live to remove
	Tars  []string
	Acks  int
	Wait  time.Duration
	Seed  uint64
	Names map[string]string // of the images that there are
}

// A change is one that the daemon reports: all images with their names, as they are then.
type change struct {
	Acked bool // it has returned
	Names map[string]string
	Cut   bool // the last line: all went well
}

const noCut = "the power stays on:"

const daemonVariable = "OSTREE_TEST_DAEMON"

// TestOpen cuts the power under a process that keeps the store open and has a container mounted, so that nothing of ours is called after
// containers/storage wrote a record. On ext4 what had returned is there; on xfs the records may be those of a moment before, and are
// those of one moment.
func TestOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, kind string) {
		seed := seed()
		t.Logf("cuts on %s under a process that stays open, SEED=%d", kind, seed)
		top, dir := testfs.Mount(t, kind), t.TempDir()
		rnd := rand.New(rand.NewPCG(seed, 3))
		d := daemon{Top: top, Tars: tars(fixtures.Require(t).Need(t, "busybox"))}
		for i := range 4 {
			d.Tars = append(d.Tars, filepath.Join(dir, fmt.Sprintf("%d.tar", i)))
			if err := writeLayer(d.Tars[len(d.Tars)-1], i); err != nil {
				t.Fatal(err)
			}
		}
		n, acked, lost, losses := 0, 0, 0, 0
		for i := range cuts(t, &acked) {
			n++
			d.Acks, d.Wait, d.Seed = rnd.IntN(8), time.Duration(rnd.IntN(60))*time.Millisecond, rnd.Uint64()
			history, done := d.run(t)
			if err := testfs.Remount(top); err != nil {
				t.Fatal(err)
			}
			d.Names = d.look(t)
			at := -1
			for j, names := range history { // the last that is like it
				if same(names, d.Names) {
					at = j
				}
			}
			switch back := done - at; {
			case at < 0:
				t.Fatalf("round %d: after the cut there are %v, as at no moment before: %v", i, d.Names, history)
			case back > 0 && kind == "ext4":
				t.Fatalf("round %d: of %d changes that had returned %d are lost: there are %v, and were %v", i, done, back, d.Names, history)
			case back > 0:
				lost, losses = lost+back, losses+1
			}
			acked += done
		}
		t.Logf("%d cuts, %d changes had returned; after %d cuts the newest of them, %d in all, were lost", n, acked, losses, lost)
		if acked < n {
			t.Errorf("only %d changes had returned before %d cuts", acked, n)
		}
	})
}

func same(a, b map[string]string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y) || len(a)+len(b) == 0
}

// run runs the daemon until the cut. It gives the states that the images went through, with the one that was not reached yet, and the
// index of the last that was.
func (d *daemon) run(t *testing.T) (history []map[string]string, done int) {
	t.Helper()
	d.Run = filepath.Join(t.TempDir(), "run")
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDaemon$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), daemonVariable+"="+string(text))
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), noCut) {
		t.Fatalf("%s", out)
	}
	history = append(history, d.Names)
	for line := range strings.Lines(string(out)) {
		rest, ok := strings.CutPrefix(line, "change ")
		if !ok {
			continue
		}
		var c change
		if err := json.Unmarshal([]byte(rest), &c); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.Cut:
			return history, done
		case c.Acked:
			done = len(history) - 1
		default:
			history = append(history, c.Names)
		}
	}
	t.Fatalf("%v\n%s", err, out)
	return nil, 0
}

// TestDaemon is the process of TestOpen.
func TestDaemon(t *testing.T) {
	var d daemon
	if text := os.Getenv(daemonVariable); text == "" {
		t.Skip("this is a part of TestOpen, which runs it in a process of its own")
	} else if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	s := d.open(t, d.Run)
	d.mount(t, s)
	var mu sync.Mutex
	enough := make(chan struct{})
	go func() {
		rnd := rand.New(rand.NewPCG(d.Seed, 5))
		if d.Names == nil {
			d.Names = map[string]string{}
		}
		for acks := 0; ; acks++ {
			if acks == d.Acks {
				close(enough)
			}
			act := d.draw(rnd, s)
			mu.Lock()
			tell(change{Names: d.Names})
			mu.Unlock()
			err := act()
			mu.Lock() // for ever, once the power is off
			if err != nil {
				t.Errorf("with the power on: %v", err)
				tell(change{})
				os.Exit(1)
			}
			tell(change{Acked: true})
			mu.Unlock()
		}
	}()
	<-enough
	time.Sleep(d.Wait)
	mu.Lock()
	tell(change{Cut: true}) // what comes later, as a change that ends or panics without a disk, is nothing
	if err := testfs.Shutdown(d.Top); err != nil {
		fmt.Println(noCut, err)
	}
	os.Exit(0) // and the store is never closed
}

func tell(c change) {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	fmt.Printf("\nchange %s\n", text)
}

// draw gives the next change, and notes what will be then.
func (d *daemon) draw(rnd *rand.Rand, s storage.Store) func() error {
	i := rnd.IntN(len(d.Tars) - 1)
	id := fmt.Sprint("image", i)
	name, more := "localhost/"+id+":1", "localhost/"+id+":2"
	switch d.Names[id] {
	case "":
		d.Names[id] = name
		return func() error { return d.put(s, id, name, d.Tars[1+i]) }
	case name:
		d.Names[id] = name + " " + more
		return func() error { return s.AddNames(id, []string{more}) }
	}
	delete(d.Names, id)
	return func() error { _, err := s.DeleteImage(id, true); return err }
}

// put makes an image of the base and one layer more, which may be there from before a cut. Its id must not begin with that of the image,
// which would then stand for the layer.
func (d *daemon) put(s storage.Store, id, name, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, _, err = s.PutLayer("layer-of-"+id, "base", nil, "", false, nil, bytes.NewReader(b))
	if err != nil && !errors.Is(err, storage.ErrDuplicateID) {
		return err
	}
	_, err = s.CreateImage(id, []string{name}, "layer-of-"+id, "", nil)
	return err
}

func (d *daemon) open(t *testing.T, run string) storage.Store {
	t.Helper()
	s, err := storage.GetStore(storage.StoreOptions{
		GraphRoot: filepath.Join(d.Top, "root"), RunRoot: run, GraphDriverName: "ostree",
		GraphDriverOptions: []string{"pinned_store=none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mount makes sure that there is the base, and has a container of it mounted.
func (d *daemon) mount(t *testing.T, s storage.Store) {
	t.Helper()
	if !s.Exists("base") {
		b, err := os.ReadFile(d.Tars[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.PutLayer("base", "", nil, "", false, nil, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Exists("always") {
		if _, err := s.CreateImage("always", nil, "base", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	c, err := s.CreateContainer("", nil, "always", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(c.ID, ""); err != nil {
		t.Fatal(err)
	}
}

// look opens the store after a cut and checks it.
func (d *daemon) look(t *testing.T) map[string]string {
	t.Helper()
	s := d.open(t, filepath.Join(t.TempDir(), "run"))
	found := map[string]string{}
	images, err := s.Images()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		if strings.HasPrefix(i.ID, "image") {
			slices.Sort(i.Names)
			found[i.ID] = strings.Join(i.Names, " ")
			rc, err := s.Diff("", i.TopLayer, nil) // all that it says is there to be read
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, rc); errors.Join(err, rc.Close()) != nil {
				t.Fatal(err)
			}
		}
	}
	containers, err := s.Containers()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers { // of the last round, if its record reached the disk: it can be mounted, and goes
		if _, err := s.Mount(c.ID, ""); err != nil {
			t.Errorf("a container that is there cannot be mounted: %v", err)
		}
		if _, err := s.Unmount(c.ID, true); err != nil {
			t.Error(err)
		}
		if err := s.DeleteContainer(c.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Shutdown(false); err != nil {
		t.Fatal(err)
	}
	s.Free()
	soundHome(t, filepath.Join(d.Top, "root", "ostree"))
	return found
}

// soundHome checks all that is stored in a driver's home.
func soundHome(t *testing.T, home string) {
	t.Helper()
	if out, err := exec.Command("ostree", "fsck", "--quiet", "--repo="+filepath.Join(home, "repo")).CombinedOutput(); err != nil {
		t.Errorf("ostree fsck: %v\n%s", err, out)
	}
	c, err := layers.OpenCatalog(home, layers.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Check(t.Context(), layers.CheckOptions{}, func(f layers.Fault) { t.Error(f) }); err != nil {
		t.Error(err)
	}
	if err := c.Repo().Fsck(t.Context(), store.FsckOptions{}, func(f store.Finding) { t.Errorf("our fsck: %v", f) }); err != nil {
		t.Error(err)
	}
}
