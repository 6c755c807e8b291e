package pins_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/pins"
	"github.com/ostree-storage/ostree-storage/store"
)

// besideEnv holds the directory of a world and what a process does in it.
const besideEnv = "PINS_BESIDE"

// TestSoakBeside has processes pull, remove, run containers, pin and collect garbage side by side, with the real `ostree prune` in a
// loop, for as long as SOAK says. Nothing is missing then, and when all that they made is removed, nothing is left.
func TestSoakBeside(t *testing.T) {
	if text := os.Getenv(besideEnv); text != "" {
		dir, role, _ := strings.Cut(text, "\n")
		beside(t, worldIn(t, dir), role)
		return
	}
	long := 4 * time.Second
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	w := worldIn(t, testfs.MountOptions(t, "ext4", testfs.Options{Size: 16 << 30}))
	w.put(one, []string{"localhost/always:1"}, layer(t, "base", 20)) // so that both stores are there
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "always"}) })
	end := time.Now().Add(long)
	b := &side{t: t, w: w, end: end, have: map[string]bool{}, gone: map[string]bool{}, done: map[string]int{}}
	var all sync.WaitGroup
	for role, n := range map[string]int{"pull": 8, "remove": 2, "container": 2, "pin": 1, "gc": 1} {
		for i := range n {
			all.Go(func() { b.run(role, i) })
		}
	}
	for _, repo := range []string{w.repo(), filepath.Join(w.pinned(), "ostree", "repo")} {
		all.Go(func() { b.ostree("prune", "--refs-only", "--repo="+repo) })
	}
	all.Wait()
	t.Logf("done: %v", b.done)
	for _, role := range []string{"pulled", "removing", "ran", "pinned", "collected", "ostree prune"} {
		if b.done[role] == 0 {
			t.Errorf("nothing was %s: %v", role, b.done)
		}
	}
	b.look()
	w.empty()
}

func (w *world) home() string { return filepath.Join(w.main.GraphRoot, "ostree") }
func (w *world) repo() string { return filepath.Join(w.home(), "repo") }

// A side is what the processes said.
type side struct {
	t    *testing.T
	w    *world
	end  time.Time
	mu   sync.Mutex
	have map[string]bool // images that were pulled
	gone map[string]bool // and those that somebody began to remove
	done map[string]int
}

// run starts one process of a role after the other.
func (b *side) run(role string, n int) {
	for i := 0; time.Now().Before(b.end) && !b.t.Failed(); i++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSoakBeside$", "-test.count=1")
		cmd.Env = append(os.Environ(), besideEnv+"="+b.w.dir+"\n"+role, fmt.Sprintf("PINS_NAME=%s%d-%d", role, n, i), "PINS_END="+b.end.Format(time.RFC3339Nano))
		var rest, stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			b.t.Error(err)
			return
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			b.note(lines.Text(), &rest)
		}
		if err := cmd.Wait(); err != nil {
			b.t.Errorf("%s %d: %v\n%s%s", role, n, err, rest.String(), stderr.String())
		}
	}
}

func (b *side) note(line string, rest *bytes.Buffer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	verb, id, _ := strings.Cut(line, " ")
	switch verb {
	case "pulled":
		b.have[id] = true
	case "removing":
		b.gone[id] = true
	case "ran", "pinned", "collected", "refused":
	default:
		fmt.Fprintln(rest, line)
		return
	}
	b.done[verb]++
}

func (b *side) ostree(args ...string) {
	ostree, err := exec.LookPath("ostree")
	if err != nil {
		b.t.Errorf("Debian's ostree is needed: %v", err)
		return
	}
	for time.Now().Before(b.end) {
		if out, err := exec.Command(ostree, args...).CombinedOutput(); err != nil {
			b.t.Errorf("ostree %q: %v\n%s", args, err, out)
			return
		}
		b.mu.Lock()
		b.done["ostree prune"]++
		b.mu.Unlock()
	}
}

// look wants everything that was acknowledged, whole.
func (b *side) look() {
	b.w.inMain(func(s storage.Store) {
		for id := range b.have {
			if _, err := s.Image(id); err != nil && !b.gone[id] {
				b.t.Errorf("acknowledged: %v", err)
			}
		}
		report, err := s.Check(storage.CheckMost())
		if err != nil || len(report.Layers)+len(report.Images)+len(report.Containers) != 0 {
			b.t.Errorf("containers/storage finds %+v, %v", report, err)
		}
	})
	b.w.inPins(func(s *pins.Store) { clean(b.t, s) })
	for _, home := range []string{b.w.home(), filepath.Join(b.w.pinned(), "ostree")} {
		b.w.sound(home)
	}
	if out, err := exec.Command("ostree", "fsck", "--quiet", "--repo="+b.w.repo()).CombinedOutput(); err != nil {
		b.t.Errorf("ostree fsck: %v\n%s", err, out)
	}
}

// sound checks a home, objects and layers.
func (w *world) sound(home string) {
	w.t.Helper()
	c, err := layers.OpenCatalog(home, layers.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	err = errors.Join(
		c.Repo().Fsck(context.Background(), store.FsckOptions{}, func(f store.Finding) { w.t.Errorf("%s: %s", home, f) }),
		c.Check(context.Background(), layers.CheckOptions{}, func(f layers.Fault) { w.t.Errorf("%s: %v", home, f) }))
	if err != nil {
		w.t.Error(err)
	}
}

// empty removes all that there is, and wants nothing to be left.
func (w *world) empty() {
	w.inPins(func(s *pins.Store) {
		list, err := s.List()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range list {
			if _, err := s.Unpin(p.Name, true); err != nil {
				w.t.Errorf("unpin %s: %v", p.Name, err)
			}
		}
	})
	w.inMain(func(s storage.Store) {
		if err := s.Wipe(); err != nil {
			w.t.Error(err)
		}
	})
	if err := w.collect(); err != nil {
		w.t.Error(err)
	}
	for _, home := range []string{w.home(), filepath.Join(w.pinned(), "ostree")} {
		for _, dir := range []string{"repo/objects", "repo/extensions/ostree-storage/lanes", "layers"} {
			err := filepath.WalkDir(filepath.Join(home, dir), func(path string, d fs.DirEntry, err error) error {
				if err == nil && (!d.IsDir() || filepath.Base(filepath.Dir(path)) == "layers") {
					w.t.Errorf("%s is left", path)
				}
				return err
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.t.Error(err)
			}
		}
	}
}

// collect does what `storagectl gc` does with both repositories.
func (w *world) collect() error {
	for _, home := range []string{filepath.Join(w.pinned(), "ostree"), w.home()} {
		c, err := layers.OpenCatalog(home, layers.Options{})
		if err != nil {
			return err
		}
		_, err = c.Repo().Prune(context.Background(), false)
		if err == nil {
			_, err = layers.DropUnusedLanes(context.Background(), c)
		}
		if err = errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// beside is one of the processes: it opens the store, makes some changes, and ends.
func beside(t *testing.T, w *world, role string) {
	end, err := time.Parse(time.RFC3339Nano, os.Getenv("PINS_END"))
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(time.Now().UnixNano())))
	act := map[string]func(storage.Store, *rand.Rand, string) error{"pull": pullOne, "remove": removeOne, "container": runOne, "gc": w.collectOne}[role]
	for i := 0; i < 12 && time.Now().Before(end); i++ {
		name := fmt.Sprintf("%s-%d", os.Getenv("PINS_NAME"), i)
		if role == "pin" {
			w.pinOne(rnd, name)
			continue
		}
		w.openMain(func(s storage.Store) {
			for range 1 + rnd.IntN(4) {
				if err := act(s, rnd, fmt.Sprintf("%s-%x", name, rnd.Uint32())); err != nil && !overtaken(err) {
					t.Errorf("%s: %v", role, err)
				}
			}
		})
	}
}

// overtaken says that another process was faster, or is using what was to be removed.
func overtaken(err error) bool {
	for _, e := range []error{
		storage.ErrImageUnknown, storage.ErrLayerUnknown, storage.ErrParentUnknown, storage.ErrContainerUnknown, storage.ErrDuplicateID,
		storage.ErrImageUsedByContainer, storage.ErrLayerUsedByContainer, storage.ErrLayerUsedByImage, storage.ErrLayerHasChildren,
		storage.ErrNotAnImage, pins.ErrUnknown, pins.ErrRefused, pins.ErrBusy,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	// containers/storage (1.64) locks the file of a temporary directory after it has made it: another process may have taken it for
	// that of a dead one in between, and the next one then removes the directory. The pull fails then, whatever the driver is.
	var link *os.LinkError
	if errors.As(err, &link) && strings.Contains(link.Old, "-layers/tmp/temp-dir-") && errors.Is(err, fs.ErrNotExist) {
		fmt.Println("refused")
		return true
	}
	return false
}

// pullOne makes an image of two layers: one of a few that all have, and one of files of which others have some.
func pullOne(s storage.Store, rnd *rand.Rand, name string) error {
	parent := ""
	for i := range 2 {
		id := fmt.Sprintf("%064x", rnd.Uint64())
		seed := rnd.Uint64()
		if i == 0 {
			seed = uint64(rnd.IntN(3))
			id = fmt.Sprintf("%064x", 0xba5e0+seed)
		}
		if _, err := s.Layer(id); err != nil {
			_, _, err := s.PutLayer(id, parent, nil, "", false, nil, bytes.NewReader(someFiles(seed)))
			if err != nil && !errors.Is(err, storage.ErrDuplicateID) {
				return err
			}
		}
		parent = id
	}
	image, err := s.CreateImage("", []string{"localhost/" + name}, parent, "", nil)
	if err == nil {
		fmt.Println("pulled", image.ID)
	}
	return err
}

// someFiles is a tar of some of the files that there are.
func someFiles(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 5))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 60 {
		if rnd.IntN(3) == 0 {
			text := strings.Repeat(fmt.Sprintf("file %d\n", i), 50*i)
			h := &tar.Header{Name: fmt.Sprintf("%s/f%d", []string{"usr", "etc"}[i%2], i), Typeflag: tar.TypeReg, Mode: 0o644,
				Size: int64(len(text)), ModTime: time.Unix(1600000000+int64(rnd.IntN(2)), 0)}
			if err := errors.Join(w.WriteHeader(h), func() error { _, err := w.Write([]byte(text)); return err }()); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// anImage picks one.
func anImage(s storage.Store, rnd *rand.Rand) (*storage.Image, error) {
	list, err := s.Images()
	if err != nil || len(list) == 0 {
		return nil, errors.Join(err, storage.ErrImageUnknown)
	}
	return &list[rnd.IntN(len(list))], nil
}

// removeOne removes images until few are left, so that there is always some work for the others.
func removeOne(s storage.Store, rnd *rand.Rand, _ string) error {
	list, err := s.Images()
	if err != nil || len(list) < 12 {
		time.Sleep(10 * time.Millisecond)
		return err
	}
	id := list[rnd.IntN(len(list))].ID
	fmt.Println("removing", id)
	_, err = s.DeleteImage(id, true)
	return err
}

// runOne makes a container, reads all that it has and writes a little.
func runOne(s storage.Store, rnd *rand.Rand, name string) error {
	image, err := anImage(s, rnd)
	if err != nil {
		return err
	}
	c, err := s.CreateContainer("", []string{name}, image.ID, "", "", nil)
	if err != nil {
		return err
	}
	root, err := s.Mount(c.ID, "")
	if err == nil {
		n := 0
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				var text []byte
				text, err = os.ReadFile(path)
				if i := 0; err == nil && bytes.HasPrefix(text, []byte("file ")) {
					if _, err = fmt.Sscanf(string(text), "file %d\n", &i); err == nil && len(text) != len(fmt.Sprintf("file %d\n", i))*50*i {
						err = fmt.Errorf("%s has %d bytes", path, len(text))
					}
				}
				n++
			}
			return err
		})
		if err == nil && n == 0 {
			err = fmt.Errorf("no files in %s", root)
		}
		err = errors.Join(err, os.WriteFile(root+"/usr/written", []byte(name), 0o600))
		_, unmountErr := s.Unmount(c.ID, true)
		err = errors.Join(err, unmountErr)
	}
	if err = errors.Join(err, s.DeleteContainer(c.ID)); err == nil {
		fmt.Println("ran", image.ID)
	}
	return err
}

// collectOne does what `storagectl gc` does.
func (w *world) collectOne(s storage.Store, _ *rand.Rand, _ string) error {
	err := errors.Join(s.GarbageCollect(), w.collect())
	if err == nil {
		fmt.Println("collected")
	}
	time.Sleep(20 * time.Millisecond)
	return err
}

// pinOne pins an image and removes the pin before it.
func (w *world) pinOne(rnd *rand.Rand, name string) {
	var id string
	w.openMain(func(s storage.Store) {
		if image, err := anImage(s, rnd); err == nil {
			id = image.ID
		}
	})
	w.inPins(func(s *pins.Store) {
		_, err := s.Pin(context.Background(), pins.Request{Image: id, Name: name})
		if err != nil {
			if !overtaken(err) && !errors.Is(err, pins.ErrDamaged) { // a layer that went in the middle
				w.t.Errorf("pin: %v", err)
			}
			return
		}
		fmt.Println("pinned", id)
		list, err := s.List()
		if err != nil {
			w.t.Error(err)
		}
		for _, p := range list {
			if p.Name != "always" && p.Name != name {
				if _, err := s.Unpin(p.Name, false); err != nil {
					w.t.Errorf("unpin: %v", err)
				}
			}
		}
	})
}
