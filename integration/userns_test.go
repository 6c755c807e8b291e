package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// autoUsers lets --userns=auto take the subordinate ids of a user of the test.
func autoUsers(t *testing.T, s *programs.Store, u programs.User) {
	t.Helper()
	text, err := os.ReadFile(s.StorageConf())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.StorageConf(), string(text)+"[storage.options]\nroot-auto-userns-user = \""+u.Name+"\"\n")
}

// sharedStore makes a store whose mounts propagate, as everything does where systemd is: podman gives a container with a user namespace
// a monitor in a mount namespace of its own, and what that unmounts would stay mounted here.
func sharedStore(t *testing.T) *programs.Store {
	t.Helper()
	dir := testfs.Mount(t, "ext4")
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	return programs.NewStore(t, filepath.Join(dir, "s"), "ostree")
}

// written gives the owners on disk of what containers made at a path.
func written(t *testing.T, s *programs.Store, path string) map[string]bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Home(), "layers", "*", "diff", path))
	if err != nil {
		t.Fatal(err)
	}
	owners := map[string]bool{}
	for _, f := range found {
		var st unix.Stat_t
		if err := unix.Lstat(f, &st); err != nil {
			t.Error(err)
		}
		owners[fmt.Sprintf("%d:%d", st.Uid, st.Gid)] = true
	}
	return owners
}

// mountsBelow gives what is mounted below a directory.
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found
}

// 20 containers with 20 maps run from one image, and none has a copy of it.
func TestPodmanUserNamespaces(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := sharedStore(t)
	image := set.Need(t, "web")
	autoUsers(t, s, programs.NewUser(t))
	pull(t, s, podman, image)
	if info := s.Run(podman, "info"); !strings.Contains(info, `Supports shifting: "true"`) {
		t.Skip("no idmapped lowers here")
	}
	before := freeAfterSync(t, s.Root)
	for n := range 20 {
		s.Run(podman, "create", fmt.Sprint("--name=c", n), "--network=none", "--userns=auto:size=2048", image.ID,
			"/bin/sh", "-ec", "stat -c %u:%g /bin/ls /etc/debian_version; touch /made; mkdir /dir; chown 33:33 /dir; cat /proc/self/uid_map")
	}
	maps := map[string]bool{}
	for n := range 20 {
		out := s.Run(podman, "start", "--attach", fmt.Sprint("c", n))
		rest, ok := strings.CutPrefix(out, "0:0\n0:0\n")
		if !ok {
			t.Errorf("container %d sees %q", n, out)
		}
		maps[strings.Join(strings.Fields(rest), " ")] = true
	}
	took := before - freeAfterSync(t, s.Root)
	t.Logf("20 containers with %d maps of an image of %d bytes take %d bytes", len(maps), image.Size(), took)
	if len(maps) != 20 || took > 20<<17 { // directories, records and libpod's own files, and no block of the image
		t.Errorf("20 containers have %d maps and take %d bytes", len(maps), took)
	}
	if owners := written(t, s, "made"); len(owners) != 20 || owners["0:0"] {
		t.Errorf("what they made belongs to %v", owners)
	}
	s.Run(podman, "rm", "--all")

	s.Run(podman, "run", "--name=map", "--network=none", "--uidmap=0:200000:65536", "--gidmap=0:300000:65536", image.ID, "touch", "/made")
	if owners := written(t, s, "made"); !owners["200000:300000"] || len(owners) != 1 {
		t.Errorf("what it made belongs to %v", owners)
	}
	// containers/storage 1.43 tells a driver that shifts nothing of the map when it asks for the diff of a container: with overlay
	// too, what the container made is committed with the host's owners.
	id := s.Run(podman, "commit", "--quiet", "map", "localhost/made:1")
	if out := s.Container(podman, id, "stat -c %u:%g /made /bin/ls"); out != "200000:300000\n0:0" {
		t.Errorf("committed: %q", out)
	}
	s.Run(podman, "rm", "map")
	// Podman mounts what it removes at the end without ever syncing it.
	if out := s.Run(podman, "run", "--rm", "--network=none", "--uidmap=0:200000:65536", "--gidmap=0:300000:65536", image.ID,
		"sh", "-ec", "stat -c %u:%g /bin/ls; grep -o 'volatile' /proc/self/mountinfo"); out != "0:0\nvolatile" {
		t.Errorf("a mapped container that is removed at its end prints %q", out)
	}
	// Podman 4.3 asks for copies where the map has several ranges; status says so, and no object changes.
	out := s.Run(podman, "run", "--rm", "--network=none", "--uidmap=0:5000:1", "--uidmap=1:200001:999", "--uidmap=1000:7000:64536",
		"--gidmap=0:300000:65536", image.ID, "stat", "-c", "%u:%g", "/bin/ls", "/etc/passwd")
	if out != "0:0\n0:0" {
		t.Errorf("split map: %q", out)
	}
	if info := s.Run(podman, "info"); !strings.Contains(info, "Layers with copied owners: '1 layers,") {
		t.Errorf("status does not say that owners were copied:\n%s", info)
	}
	s.Run(podman, "rmi", "--all", "--force")
	if left := mountsBelow(t, s.Root); len(left) != 0 {
		t.Errorf("left mounted: %v", left)
	}
	if layers, err := os.ReadDir(filepath.Join(s.Home(), "layers")); err != nil || len(layers) != 0 {
		t.Errorf("%d layers are left: %v", len(layers), err)
	}
}

// removeKilled removes all containers. Podman notices only at its second look that a container is dead whose conmon was
// killed ("container state improper: stopped"), whatever the driver, so a failure is tried again.
func removeKilled(t *testing.T, s *programs.Store, podman programs.Program) {
	t.Helper()
	for range 4 {
		c := s.Call(podman, "rm", "--all", "--force", "--time=0")
		cmd := exec.Command(c.Path, c.Args...)
		cmd.Env = append(os.Environ(), c.Env...)
		if cmd.Run() == nil {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	s.Run(podman, "rm", "--all", "--force", "--time=0")
}

// A killed podman or conmon leaves nothing that the next podman does not put right.
func TestPodmanUserNamespaceKilled(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := sharedStore(t)
	image := set.Need(t, "web")
	autoUsers(t, s, programs.NewUser(t))
	pull(t, s, podman, image)
	args := []string{"run", "--network=none", "--userns=auto:size=2048", image.ID, "sleep", "100"}
	for n := range 6 {
		c := s.Call(podman, args...)
		cmd := exec.Command(c.Path, c.Args...)
		cmd.Env = append(os.Environ(), c.Env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+n*80) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	removeKilled(t, s, podman)

	id := s.Run(podman, append([]string{"run", "--detach"}, args[1:]...)...)
	conmon := s.Run(podman, "inspect", id, "--format", "{{.State.ConmonPid}} {{.State.Pid}}")
	var pids [2]int
	if _, err := fmt.Sscan(conmon, &pids[0], &pids[1]); err != nil {
		t.Fatalf("%q: %v", conmon, err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	removeKilled(t, s, podman)
	if left := mountsBelow(t, s.Root); len(left) != 0 {
		t.Errorf("left mounted: %v", left)
	}
	// A podman that is killed after containers/storage wrote down the layer, and before it did the container, leaves the layer,
	// whatever the driver. What the driver has must be in that list.
	layers, err := os.ReadDir(filepath.Join(s.Home(), "layers"))
	if err != nil || len(layers) < len(image.Layers) || len(layers) > len(image.Layers)+6 {
		t.Errorf("%d layers are left, the image has %d: %v", len(layers), len(image.Layers), err)
	}
	known := s.Records()
	for _, l := range layers {
		if !slices.Contains(known, l.Name()) {
			t.Errorf("layer %s is left, of which containers/storage does not know", l.Name())
		}
	}
	s.Container(podman, image.ID, "true")
}
