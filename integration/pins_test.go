package integration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// A removal is a way in which images get lost.
type removal struct {
	name    string
	program string // that has to be there
	all     bool   // it is to remove every image that nobody uses
	run     func(t *testing.T, p *pinned, program programs.Program)
}

// pinned is a store with a pinned image, and one that is not pinned.
type pinned struct {
	t       *testing.T
	s       *programs.Store
	podman  programs.Program
	store   string // the pinned store
	image   fixtures.Image
	other   fixtures.Image
	program string // storagectl
}

// try runs a program that may fail: what counts is what it leaves.
func (p *pinned) try(program programs.Program, args ...string) {
	p.t.Helper()
	r := p.s.Try(program, args...)
	p.t.Logf("%s %s: exit status %d %s", program.Name, strings.Join(args, " "), r.Code, strings.TrimSpace(r.Stderr))
}

func plain(program string, all bool, args ...string) removal {
	return removal{program + " " + strings.Join(args, " "), program, all, func(_ *testing.T, p *pinned, program programs.Program) {
		p.try(program, args...)
	}}
}

// onImage is plain with the pinned image's name as its last argument.
func onImage(program string, args ...string) removal {
	return removal{program + " " + strings.Join(args, " ") + " IMAGE", program, false, func(_ *testing.T, p *pinned, program programs.Program) {
		p.try(program, append(slices.Clone(args), p.image.ID)...)
	}}
}

// removals are the paths that can be run here.
var removals = []removal{
	onImage("podman", "rmi", "-f"),
	plain("podman", true, "rmi", "-af"),
	plain("podman", true, "image", "prune", "-af"),
	plain("podman", true, "system", "prune", "-af"),
	plain("podman", true, "system", "prune", "-af", "--volumes"),
	plain("podman", true, "system", "reset", "-f"),
	plain("buildah", true, "rmi", "-af"),
	onImage("containers-storage", "delete-image"),
	onImage("containers-storage", "delete"),
	{"containers-storage delete-layer LAYER", "containers-storage", false, func(t *testing.T, p *pinned, program programs.Program) {
		p.try(program, "delete-layer", p.topLayer())
	}},
	plain("containers-storage", true, "wipe"),
	plain("containers-storage", false, "gc"),
	plain("containers-storage", false, "check", "-r", "-f"),
	plain("containers-storage-legacy", true, "wipe"),
	plain("containers-storage-legacy", false, "gc"),
	{"ostree prune --refs-only", "podman", false, func(t *testing.T, p *pinned, _ programs.Program) {
		if _, err := os.Stat(p.s.Repo()); err == nil {
			programs.Must(t, "ostree", "prune", "--repo="+p.s.Repo(), "--refs-only")
		}
		programs.Must(t, "ostree", "prune", "--repo="+filepath.Join(p.store, "ostree", "repo"), "--refs-only")
	}},
	{"rm -rf graphroot", "podman", true, func(t *testing.T, p *pinned, _ programs.Program) {
		p.try(p.podman, "rm", "-af")
		programs.Must(t, "rm", "-rf", p.s.Root)
	}},
	{"rm -rf graphroot runroot", "podman", true, func(t *testing.T, p *pinned, _ programs.Program) {
		p.try(p.podman, "rm", "-af")
		programs.Must(t, "rm", "-rf", p.s.Root, p.s.RunRoot)
	}},
}

// notHere are the paths that no test here runs: for want of a program, or because they have no meaning for a store of containers.
// CRI-O's are TestPinsSurviveCRIO's.
var notHere = []string{
	"kubelet itself (TestPinsSurviveCRIO does what its collector does)",
	"podman system check -rf (podman 4.3.1 has none; containers-storage check -r -f is it)", "ostree admin cleanup (no sysroot)",
}

// TestPinsSurvive runs every removal path with the pinned image in the read-write store as well and without, before and after a container
// of it ran.
func TestPinsSurvive(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	dir := testfs.Mount(t, "ext4")
	paths, left := removals, slices.Clone(notHere)
	ended := map[string]*atomic.Int32{} // by the removal's name: how many of its cases came to their end
	t.Run("paths", func(t *testing.T) {
		for n, r := range paths {
			count := new(atomic.Int32)
			ended[r.name] = count
			for i := range 4 {
				tagged, used := i < 2, i%2 == 1
				t.Run(fmt.Sprintf("%s/tagged=%v/ran=%v", strings.ReplaceAll(r.name, "/", "_"), tagged, used), func(t *testing.T) {
					t.Parallel()
					p := newPinned(t, podman, set, filepath.Join(dir, fmt.Sprint(4*n+i))) // podman takes no long runroot
					survives(t, p, r, tagged, used)
					count.Add(1)
				})
			}
		}
	})
	var run []string
	for _, r := range paths {
		if ended[r.name].Load() == 4 {
			run = append(run, r.name)
		} else {
			left = append(left, r.name+" (skipped or failed)")
		}
	}
	reportPaths(t, run, left)
}

// survives runs one removal on a store where the pinned image is in the read-write store as well or not, and has been run from there
// or not.
func survives(t *testing.T, p *pinned, r removal, tagged, used bool) {
	t.Helper()
	program := programs.Find(t, r.program)
	use := func() {
		p.s.Run(p.podman, "run", "--name=ran", "--network=none", p.image.Ref(), "/bin/busybox", "true")
	}
	if used {
		use()
	}
	if !tagged {
		p.s.Run(p.podman, "rmi", "-f", p.image.ID)
		if used {
			use()
		}
	}
	r.run(t, p, program)
	p.alive()
	if r.all {
		p.onlyPinned()
	}
}

// storagectl builds the command once.
var storagectl = sync.OnceValues(func() (string, error) {
	root, err := fixtures.ModuleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", "storagectl") // the same at every run, so that nothing is left behind
	return path, buildStoragectl(root, path)
})

// newPinned makes a store with two images, one of which is pinned.
func newPinned(t *testing.T, podman programs.Program, set *fixtures.Set, dir string) *pinned {
	t.Helper()
	path, err := storagectl()
	if err != nil {
		t.Fatal(err)
	}
	p := &pinned{t: t, s: programs.NewStore(t, dir, "ostree"), podman: podman, store: filepath.Join(dir, "pinned"), program: path}
	p.s.FsckOnly = true
	p.s.Options = []string{"pinned_store=" + p.store}
	p.image, p.other = set.Need(t, "busybox"), set.Need(t, "tiny")
	pull(t, p.s, podman, p.image)
	pull(t, p.s, podman, p.other)
	p.storagectl("pin", p.image.Ref(), "--name", "os")
	return p
}

// storagectl runs the command, which has to work.
func (p *pinned) storagectl(args ...string) string {
	p.t.Helper()
	c := p.s.Call(programs.Program{Name: "storagectl", Path: p.program})
	c.Args = append([]string{"--root", p.s.Root, "--runroot", p.s.RunRoot, "--storage-opt", "pinned_store=" + p.store}, args...)
	r := c.Exec(p.t)
	if r.Code != 0 {
		p.t.Fatal(r)
	}
	return r.Stdout
}

// topLayer is the pinned image's.
func (p *pinned) topLayer() string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.store, "ostree-images", "images.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	var records []struct {
		Layer string `json:"layer"`
	}
	if err := json.Unmarshal(text, &records); err != nil || len(records) != 1 {
		p.t.Fatalf("the pinned store has the images %s (%v)", text, err)
	}
	return records[0].Layer
}

// alive checks that the pinned image is listed, runs, is saved with the same DiffIDs, and verifies.
func (p *pinned) alive() {
	p.t.Helper()
	if list := p.s.Run(p.podman, "images", "--no-trunc", "--format", "{{.ID}} {{.ReadOnly}}"); !strings.Contains(list, p.image.ID+" true") {
		p.t.Errorf("podman images lists\n%s", list)
	}
	if list := p.storagectl("pin", "ls"); !strings.Contains(list, p.image.ID[:12]) {
		p.t.Errorf("storagectl pin ls lists\n%s", list)
	}
	p.s.Run(p.podman, "run", "--rm", "--network=none", p.image.Ref(), "/bin/busybox", "true")
	archive := filepath.Join(p.s.Dir, "saved.tar")
	p.s.Run(p.podman, "save", "--quiet", "--format=oci-archive", "--output", archive, p.image.Ref())
	var want []string
	for _, l := range p.image.Layers {
		want = append(want, l.DiffID)
	}
	if got := readArchive(p.t, archive); !slices.Equal(got, want) {
		p.t.Errorf("the saved DiffIDs are %v, want %v", got, want)
	}
	os.Remove(archive)
	p.storagectl("pin", "verify")
	if r := (programs.Call{Path: "ostree", Args: []string{"fsck", "--quiet", "--repo=" + filepath.Join(p.store, "ostree", "repo")}}).Exec(p.t); r.Code != 0 {
		p.t.Error(r)
	}
}

// onlyPinned checks that what is not pinned is gone: the record and the layers.
func (p *pinned) onlyPinned() {
	p.t.Helper()
	if list := p.s.Run(p.podman, "images", "--no-trunc", "--format", "{{.ID}}"); strings.Contains(list, p.other.ID) {
		p.t.Errorf("podman images lists what is not pinned:\n%s", list)
	}
	layers := p.s.Layers()
	for _, l := range p.other.Layers {
		for id, diff := range layers {
			if diff == l.DiffID {
				p.t.Errorf("layer %s of the image that is not pinned is there", id)
			}
		}
	}
}
