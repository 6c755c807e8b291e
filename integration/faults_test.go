package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// A setuid program cannot be kept by a link until after its update: no user reaches the object, whatever fs.protected_hardlinks is, and
// root of a container links a copy of his own.
func TestB02SetuidLinks(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	image := set.Need(t, "busybox")
	pull(t, s, podman, image)
	file := filepath.Join(s.Dir, "Containerfile")
	writeFile(t, file, "FROM "+image.ID+"\nRUN cp /bin/busybox /bin/suid && chmod 6755 /bin/suid\n")
	s.Run(podman, "build", "--quiet", "--pull=never", "--isolation=chroot", "-t", "localhost/suid:1", "-f", file, filepath.Join(s.Dir, "tmp"))
	for _, above := range []string{filepath.Dir(filepath.Dir(s.Dir)), filepath.Dir(s.Dir), s.Dir, s.Root} {
		if err := os.Chmod(above, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	paths := strings.Fields(programs.Must(t, "find", s.Home(), "-type", "f", "-perm", "-6000"))
	if len(paths) < 2 { // the object, and the layer's
		t.Fatalf("setuid files are %q", paths)
	}
	own := filepath.Join(s.Root, "own")
	writeFile(t, filepath.Join(own, "file"), "x")
	programs.Must(t, "chown", "-R", "1000:1000", own)
	link := func(from, name string) programs.Result {
		return programs.Call{Path: "setpriv", Args: []string{"--reuid=1000", "--regid=1000", "--clear-groups", "ln", from, filepath.Join(own, name)}}.Exec(t)
	}
	if r := link(filepath.Join(own, "file"), "linked"); r.Code != 0 {
		t.Fatalf("a user cannot even link what is his own: %v", r)
	}
	for _, p := range paths {
		if r := link(p, "kept"); r.Code == 0 || !strings.Contains(r.Stderr, "Permission denied") {
			t.Errorf("a user links %s: %v", p, r)
		}
	}
	var before, after unix.Stat_t
	if err := unix.Stat(paths[0], &before); err != nil {
		t.Fatal(err)
	}
	s.Run(podman, "run", "--name=c", "--network=none", "localhost/suid:1", "/bin/busybox", "sh", "-ec", "/bin/busybox ln /bin/suid /kept; /bin/busybox test -u /kept")
	if err := unix.Stat(paths[0], &after); err != nil || after.Nlink != before.Nlink || after.Ino != before.Ino {
		t.Errorf("a container linked the object: %d links, and had %d, %v", after.Nlink, before.Nlink, err)
	}
	s.Run(podman, "rm", "c")
	s.Run(podman, "rmi", "-f", "localhost/suid:1")
	if left := programs.Must(t, "find", s.Root, "-type", "f", "-perm", "-6000"); left != "" {
		t.Errorf("without its image there is still\n%s", left)
	}
}

// Bit rot in what containers/storage keeps of a tar is found by its own check, and never leads to other bytes of a layer, as with overlay.
func TestB12TarSplit(t *testing.T) {
	t.Parallel()
	cli, set := programs.Find(t, "containers-storage"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	image := set.Need(t, "busybox")
	var found []bool
	for _, s := range []*programs.Store{ours, overlay} {
		layer := firstWord(s.Run(cli, "import-layer", "--file", image.Layers[0].Tar))
		s.Run(cli, "create-image", "--name", image.Ref(), layer)
		s.Run(cli, "check")
		path := filepath.Join(s.Root, s.Driver+"-layers", layer+".tar-split.gz")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(text) / 2, len(text) - 1} {
			text[at] ^= 0x10
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			check := s.Try(cli, "check")
			found = append(found, check.Code != 0 || strings.Contains(check.Stdout, layer))
			out := filepath.Join(s.Dir, "diff.tar")
			if r := s.Try(cli, "diff", "--uncompressed", "--file", out, layer); r.Code == 0 {
				if got, err := fixtures.DescribeTar(out); err == nil && got.DiffID != image.Layers[0].DiffID {
					t.Errorf("%s: with byte %d changed the layer is another, without an error", s.Driver, at)
				}
			}
			text[at] ^= 0x10
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.Run(cli, "check")
	}
	for i := range 3 {
		if !found[i] || !found[i+3] {
			t.Errorf("check found the changed byte: with ostree %v, with overlay %v", found[i], found[i+3])
		}
	}
}

// TestCheckBesideContainers: a check of a healthy store has no finding while containers run, write, and come and go.
func TestCheckBesideContainers(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	path, err := storagectl()
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, "ostree")
	image := set.Need(t, "busybox")
	pull(t, s, podman, image)
	for name, script := range map[string]string{
		"writes": `i=0; while :; do i=$((i+1)); echo $i >/file$((i%50)); rm -f /file$(((i+25)%50)); sleep 0.02; done`,
		"copies": `while :; do cp -a /bin/busybox /copy; ln -f /copy /link; mv /copy /moved; sleep 0.02; done`,
		"sleeps": `exec sleep 1000`,
	} {
		s.Run(podman, "run", "--detach", "--name="+name, "--network=none", image.ID, "/bin/busybox", "sh", "-c", "PATH=/bin; busybox --install -s /bin 2>/dev/null; "+script)
	}
	check := func(args ...string) {
		t.Helper()
		c := s.Call(programs.Program{Name: "storagectl", Path: path})
		c.Args = append([]string{"--root", s.Root, "--runroot", s.RunRoot, "--storage-opt", "pinned_store=none", "check"}, args...)
		if r := c.Exec(t); r.Code != 0 {
			t.Errorf("with containers running: %v", r)
		}
	}
	for range 3 {
		check("--quick")
		check()
		check("--subset", "1/3")
		s.Run(podman, "run", "--rm", "--network=none", image.ID, "/bin/busybox", "true")
	}
	if up := strings.Fields(s.Run(podman, "ps", "--quiet")); len(up) != 3 {
		t.Errorf("%d containers run, want 3", len(up))
	}
	s.Run(podman, "rm", "--all", "--force", "--time=0")
	check()
}
