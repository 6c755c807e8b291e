package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

func blocksOf(fi os.FileInfo) (bytes int64, links uint64) {
	st := fi.Sys().(*syscall.Stat_t)
	return st.Blocks * 512, uint64(st.Nlink)
}

func buildStoragectl(root, path string) error {
	// The host's CRI-O is none of a test's: where its configuration would be there is nothing. Tests of it name a directory.
	c := exec.Command("go", "build", "-ldflags", "-X main.crioDir="+path+".no-crio", "-o", path, "./cmd/storagectl")
	c.Dir = root
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build storagectl: %w\n%s", err, out)
	}
	return nil
}

// A big image's pin takes directories and the files that have inodes of their own; no object is written again.
func TestPinSpace(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	path, err := storagectl()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(testfs.Mount(t, "ext4"), "store")
	p := &pinned{t: t, s: programs.NewStore(t, dir, "ostree"), podman: podman, store: filepath.Join(dir, "pinned"), program: path}
	p.s.FsckOnly = true
	p.s.Options = []string{"pinned_store=" + p.store}
	p.image = set.Need(t, "python")
	pull(t, p.s, podman, p.image)
	before := freeAfterSync(t, p.s.Root)
	p.storagectl("pin", p.image.Ref(), "--name", "os")
	cost := before - freeAfterSync(t, p.s.Root)
	var dirs, private, rest int64
	err = filepath.Walk(p.store, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		blocks, links := blocksOf(fi)
		switch {
		case fi.IsDir():
			dirs += blocks
		case links > 1:
		case strings.Contains(path, "/tree/"):
			private += blocks
		case strings.Contains(path, "/objects/"):
			t.Errorf("object %s is not shared", path)
		default:
			rest += blocks
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("pinning %s, %d KiB, took %d KiB: directories %d KiB, inodes of their own %d KiB, records %d KiB", p.image.Name, p.image.Size()>>10, cost>>10, dirs>>10, private>>10, rest>>10)
	if content := cost - dirs; content > 4<<20 {
		t.Errorf("a pin took %d KiB besides directories", content>>10)
	}
	// An update shares layers with what is pinned; when that goes, it stays whole.
	programs.Must(t, "rm", "-rf", p.s.Root, p.s.RunRoot)
	p.alivePython()
}

// alivePython runs the pinned image with nothing else left.
func (p *pinned) alivePython() {
	p.t.Helper()
	if out := p.s.Container(p.podman, p.image.Ref(), "python3 -c 'import json; print(json.dumps(1))'"); strings.TrimSpace(out) != "1" {
		p.t.Errorf("python prints %q", out)
	}
	p.storagectl("pin", "verify")
}

// An image that is built on the pinned one after a wipe stands on its layers; unpinning leaves it whole.
func TestUnpinLeavesChildren(t *testing.T) {
	t.Parallel()
	podman, buildah, set := programs.Find(t, "podman"), programs.Find(t, "buildah"), fixtures.Require(t)
	p := newPinned(t, podman, set, filepath.Join(testfs.Mount(t, "ext4"), "store"))
	programs.Must(t, "rm", "-rf", p.s.Root, p.s.RunRoot)
	p.s.Run(buildah, "from", "--pull=never", "--name=work", p.image.Ref())
	file := filepath.Join(p.s.Dir, "file")
	writeFile(t, file, "v2\n")
	p.s.Run(buildah, "copy", "work", file, "/v2")
	p.s.Run(buildah, "commit", "--quiet", "work", "localhost/v2:1")
	p.s.Run(buildah, "rm", "work")
	// Once more as a pull, which finds the pinned layers.
	skopeo, layout := programs.Find(t, "skopeo"), "oci:"+filepath.Join(p.s.Dir, "v2")+":1"
	p.s.Run(skopeo, "copy", "--quiet", p.s.Reference("localhost/v2:1"), layout)
	programs.Must(t, "rm", "-rf", p.s.Root, p.s.RunRoot)
	p.s.Run(skopeo, "copy", "--quiet", layout, p.s.Reference("localhost/v2:1"))
	if n := len(p.s.Layers()); n != 1 {
		t.Errorf("pulling v2 made %d layers, want its own alone", n)
	}
	if out := p.storagectl("unpin", "os"); !strings.Contains(out, "held") {
		t.Errorf("unpin says\n%s", out)
	}
	if out := p.storagectl("pin", "ls"); strings.Contains(out, p.image.ID[:12]) {
		t.Errorf("pin ls lists\n%s", out)
	}
	if out := p.storagectl("pin", "ls", "--held"); !strings.Contains(out, p.s.Root) {
		t.Errorf("pin ls --held lists\n%s", out)
	}
	if out := p.s.Run(podman, "run", "--rm", "--network=none", "localhost/v2:1", "/bin/busybox", "cat", "/v2"); out != "v2" {
		t.Errorf("v2 prints %q", out)
	}
	archive := filepath.Join(p.s.Dir, "v2.tar")
	p.s.Run(podman, "save", "--quiet", "--format=oci-archive", "--output", archive, "localhost/v2:1")
	if got := readArchive(t, archive); len(got) != 2 || got[0] != p.image.Layers[0].DiffID {
		t.Errorf("v2 is saved with %v", got)
	}
	cli := programs.Find(t, "containers-storage")
	p.s.Run(cli, "check")
	p.s.Run(podman, "rmi", "-f", "localhost/v2:1")
	p.storagectl("unpin", "--held")
	if out := p.storagectl("pin", "ls", "--held"); strings.Contains(out, p.s.Root) {
		t.Errorf("pin ls --held lists\n%s", out)
	}
}

// The pinned store never makes a program fail: absent, unreadable, of a later format.
func TestPinnedStoreHidden(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	p := newPinned(t, podman, set, filepath.Join(testfs.Mount(t, "ext4"), "store"))
	version := filepath.Join(p.store, "ostree", "version")
	text, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name  string
		spoil func()
	}{
		{"later format", func() { writeFile(t, version, strings.Replace(string(text), "1", "999", 1)) }},
		{"no lock", func() {
			writeFile(t, version, string(text))
			os.Remove(filepath.Join(p.store, "ostree-images", "images.lock"))
		}},
		{"no store", func() { programs.Must(t, "rm", "-rf", p.store) }},
		{"a file", func() { writeFile(t, p.store, "x") }},
	} {
		step.spoil()
		if list := p.s.Run(podman, "images", "--no-trunc", "--format", "{{.ID}} {{.ReadOnly}}"); strings.Contains(list, "true") || !strings.Contains(list, p.image.ID) {
			t.Errorf("%s: podman images lists\n%s", step.name, list)
		}
		p.s.Run(podman, "run", "--rm", "--network=none", p.image.Ref(), "/bin/busybox", "true")
	}
}

// A pin that is killed at any moment leaves what was pinned before, can be done again, and needs no repair.
func TestPinKilled(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	p := newPinned(t, podman, set, filepath.Join(testfs.Mount(t, "ext4"), "store"))
	p.other = set.Need(t, "node")
	pull(t, p.s, podman, p.other)
	args := []string{"--root", p.s.Root, "--runroot", p.s.RunRoot, "--storage-opt", "pinned_store=" + p.store}
	killed, ended := 0, false
	for delay := 30 * time.Millisecond; !ended && delay < time.Minute; delay = delay * 8 / 5 {
		c := exec.Command(p.program, append(args, "pin", p.other.Ref(), "--name", "other")...)
		c.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+p.s.StorageConf())
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(delay, func() { c.Process.Kill() })
		if ended = c.Wait() == nil; !ended {
			killed++
		}
		timer.Stop()
		if list := p.storagectl("pin", "ls"); !strings.Contains(list, "os ") {
			t.Fatalf("after %v pin ls lists\n%s", delay, list)
		}
		p.storagectl("pin", "doctor")
		p.storagectl("pin", "verify", "os", "--quick")
		if r := p.s.Try(programs.Program{Name: "podman", Path: podman.Path}, "run", "--rm", "--network=none", p.image.Ref(), "/bin/busybox", "true"); r.Code != 0 {
			t.Fatal(r)
		}
		p.storagectl("unpin", "--held")
		if list := p.storagectl("pin", "ls"); strings.Contains(list, p.other.ID[:12]) {
			p.storagectl("unpin", p.other.ID)
		}
	}
	t.Logf("%d pins were killed", killed)
	if killed == 0 {
		t.Error("no pin was killed")
	}
	p.storagectl("pin", p.other.Ref(), "--name", "other")
	p.storagectl("pin", "verify")
	p.alive()
}
