package integration_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// The distribution's own podman on overlay and ours with the driver run on one machine at the same time.
func TestBesideStockPodman(t *testing.T) {
	t.Parallel()
	podman, stock, set := programs.Find(t, "podman"), programs.Stock(t), fixtures.Require(t)
	ours, overlay := twoStores(t)
	image := set.Need(t, "web")
	var both sync.WaitGroup
	for _, side := range []struct {
		s *programs.Store
		p programs.Program
	}{{ours, podman}, {overlay, stock}} {
		both.Go(func() {
			c := side.s.Call(side.p, "pull", "--quiet", "oci:"+image.Name)
			c.Dir = filepath.Dir(image.Layout)
			if r := c.Exec(t); r.Code != 0 {
				t.Error(r)
			}
		})
	}
	both.Wait()
	for _, side := range []struct {
		s *programs.Store
		p programs.Program
	}{{ours, podman}, {overlay, stock}} {
		side.s.Run(side.p, "run", "--name=mine", "--network=none", image.ID, "/bin/sh", "-c", "echo "+side.s.Driver+" >/who")
	}
	for _, side := range []struct {
		s *programs.Store
		p programs.Program
	}{{ours, podman}, {overlay, stock}} {
		side.s.Run(side.p, "commit", "--quiet", "mine", "localhost/mine:1")
		if out := side.s.Container(side.p, "localhost/mine:1", "cat /who"); out != side.s.Driver {
			t.Errorf("%s sees %s's file", side.s.Driver, out)
		}
	}
	ours.Run(podman, "system", "reset", "--force")
	if out := overlay.Container(stock, "localhost/mine:1", "cat /who"); out != "overlay" {
		t.Errorf("after our reset overlay's container says %q", out)
	}
	if text := overlay.Run(stock, "info", "--format", "{{.Store.GraphDriverName}}"); text != "overlay" {
		t.Errorf("stock podman uses %s", text)
	}
	// A stock podman refuses the driver, and names it.
	ours.Fails(stock, []string{"ostree"}, "images")
}

// Both drivers in one graphroot: each sees its own images alone, and check and gc of one leave the other's be.
func TestOneGraphroot(t *testing.T) {
	t.Parallel()
	cli, skopeo, set := programs.Find(t, "containers-storage"), programs.Find(t, "skopeo"), fixtures.Require(t)
	ours := newStore(t, "ostree")
	overlay := programs.NewStore(t, filepath.Join(ours.Dir, "second"), "overlay")
	overlay.Root = ours.Root
	for n, s := range []*programs.Store{ours, overlay} {
		image := set.Need(t, []string{"tiny", "busybox"}[n])
		s.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), s.Reference(image.Ref()))
	}
	for range 2 {
		for n, s := range []*programs.Store{ours, overlay} {
			s.Run(cli, "gc")
			s.Run(cli, "check")
			text := s.Run(cli, "images")
			if own, other := []string{"tiny", "busybox"}[n], []string{"busybox", "tiny"}[n]; !strings.Contains(text, own) || strings.Contains(text, other) {
				t.Errorf("%s lists\n%s", s.Driver, text)
			}
		}
	}
}

// The driver is chosen in storage.conf, which also names an additional store; its images run, and stay as they are.
func TestStorageConf(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	main := newStore(t, "ostree")
	second := programs.NewStore(t, filepath.Join(filepath.Dir(main.Dir), "ro"), "ostree")
	pull(t, second, podman, set.Need(t, "tiny"))
	config, err := os.ReadFile(main.StorageConf())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, main.StorageConf(), string(config)+"[storage.options]\nadditionalimagestores = [\""+second.Root+"\"]\n")
	call := func(args ...string) programs.Result {
		c := main.Call(podman, args...)
		c.Args = args // no flags: all from storage.conf
		return c.Exec(t)
	}
	if r := call("info", "--format", "{{.Store.GraphDriverName}}"); strings.TrimSpace(r.Stdout) != "ostree" {
		t.Fatalf("the driver is %v", r)
	}
	before := state(t, second)
	if r := call("run", "--rm", "--network=none", "localhost/tiny:latest", "/bin/sh", "-c", "read line </etc/motd; echo $line"); r.Code != 0 || !strings.Contains(r.Stdout, "hello from a fixture") {
		t.Errorf("a container of the second store's image: %v", r)
	}
	if r := call("save", "--quiet", "--format=oci-archive", "-o", filepath.Join(main.Dir, "ro.tar"), "localhost/tiny:latest"); r.Code != 0 {
		t.Error(r)
	}
	if r := call("rmi", "--force", "localhost/tiny:latest"); r.Code == 0 {
		t.Errorf("an image of a read-only store can be removed: %v", r)
	}
	if r := call("system", "prune", "--all", "--force", "--volumes"); r.Code != 0 {
		t.Error(r)
	}
	if after := state(t, second); after != before {
		t.Errorf("the second store changed:\n%s\nwas\n%s", after, before)
	}
}

// An image of very many layers runs, and no line of mountinfo grows so long that programs cannot read it.
func TestManyLayers(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	tars := []string{set.Need(t, "tiny").Layers[0].Tar}
	for n := range 200 {
		file := filepath.Join(s.Dir, "layers", strings.Repeat("l", n+1)+".tar")
		writeFile(t, file, string(makeTar(t, entry{"layers/", ""}, entry{"layers/" + strings.Repeat("l", n+1), "x"})))
		tars = append(tars, file)
	}
	layout := filepath.Join(s.Dir, "many")
	image, err := fixtures.WriteLayout(layout, fixtures.Spec{Name: "many", Tars: tars, Created: time.Unix(1e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	s.Run(podman, "pull", "--quiet", "oci:"+layout)
	if out := s.Container(podman, image.ID, "ls /layers | wc -l"); out != "200" {
		t.Errorf("the container sees %s files, want 200", out)
	}
	s.Run(podman, "create", "--name=c", image.ID, "true")
	s.Run(podman, "mount", "c")
	defer s.Run(podman, "umount", "c")
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f) // as most programs read it: a line has 64 KiB at most
	for lines.Scan() {
		if strings.Contains(lines.Text(), s.Dir) {
			t.Logf("%d bytes of mountinfo for %d layers", len(lines.Text()), len(tars))
		}
	}
	if err := lines.Err(); err != nil {
		t.Errorf("read mountinfo: %v", err)
	}
}

// A host's own commits in the repository are roots like any other, and neither side's pruning takes the other's.
func TestB09ForeignCommits(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	tiny, web := set.Need(t, "tiny"), set.Need(t, "web")
	pull(t, s, podman, tiny)
	tree := filepath.Join(s.Dir, "host")
	writeFile(t, filepath.Join(tree, "etc", "host"), "mine\n")
	programs.Must(t, "ostree", "commit", "--repo="+s.Repo(), "-b", "host/os", tree)
	// A commit of another repository comes in by pull-local, beside the layers.
	other := filepath.Join(s.Dir, "other")
	programs.Must(t, "ostree", "init", "--repo="+other, "--mode=bare")
	writeFile(t, filepath.Join(tree, "etc", "other"), "theirs\n")
	programs.Must(t, "ostree", "commit", "--repo="+other, "-b", "host/other", tree)
	programs.Must(t, "ostree", "pull-local", "--repo="+s.Repo(), other, "host/other")
	pull(t, s, podman, web)
	programs.Must(t, "ostree", "prune", "--repo="+s.Repo(), "--refs-only")
	s.Container(podman, web.ID, "test -e /usr/sbin/nginx")
	s.Run(podman, "rmi", "--all", "--force")
	if out := programs.Must(t, "ostree", "cat", "--repo="+s.Repo(), "host/os", "/etc/host"); out != "mine\n" {
		t.Errorf("the host's file is %q", out)
	}
	if out := programs.Must(t, "ostree", "cat", "--repo="+s.Repo(), "host/other", "/etc/other"); out != "theirs\n" {
		t.Errorf("the other repository's file is %q", out)
	}
	programs.Must(t, "ostree", "prune", "--repo="+s.Repo(), "--refs-only")
	pull(t, s, podman, web)
	s.Container(podman, web.ID, "test -e /usr/sbin/nginx")
}
