package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// criClient builds integration/cri once.
var criClient = sync.OnceValues(func() (string, error) {
	root, err := fixtures.ModuleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", "cri")
	c := exec.Command("go", "build", "-o", path, ".")
	c.Dir = filepath.Join(root, "integration", "cri")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build integration/cri: %w\n%s", err, out)
	}
	return path, nil
})

const pause = "localhost/pause:1"

// pauseImage puts an image into the store that CRI-O can take for its sandboxes, without a process of it.
func pauseImage(t *testing.T, s *programs.Store, podman programs.Program) {
	t.Helper()
	if s.Try(podman, "image", "exists", pause).Code == 0 {
		return
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "pause"), "")
	tar := filepath.Join(t.TempDir(), "pause.tar")
	programs.Must(t, "tar", "-C", dir, "-cf", tar, "pause")
	s.Run(podman, "import", "--quiet", tar, pause)
}

// newCRIO makes a CRI-O on a store.
func newCRIO(t *testing.T, s *programs.Store, podman, crio programs.Program) *programs.CRIO {
	t.Helper()
	client, err := criClient()
	if err != nil {
		t.Fatal(err)
	}
	pauseImage(t, s, podman)
	return programs.NewCRIO(t, s, crio, client, pause)
}

// needCRIO gives the CRI-O that was built with the driver, or skips the test.
func needCRIO(t *testing.T) programs.Program {
	t.Helper()
	crio, ok := programs.CRIOBinary(t)
	if !ok {
		t.Skip("CRIO names no CRI-O with the driver")
	}
	t.Logf("program: %s", crio.Version)
	return crio
}

// Pods of real images run under CRI-O, write, and leave nothing.
func TestCRIOPods(t *testing.T) {
	crio, podman, set := needCRIO(t), programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	s.FsckOnly = true
	for _, name := range []string{"busybox", "tiny", "python", "web"} {
		pull(t, s, podman, set.Need(t, name))
	}
	c := newCRIO(t, s, podman, crio)
	before := layerDirs(t, s)
	c.Start()
	var pods []*programs.Pod
	for _, step := range []struct{ image, script, want string }{
		{"busybox", "echo written >/etc/new; cat /etc/new", "written\n"},
		{"tiny", "echo $((6*7))", "42\n"},
		{"python", "python3 -c 'import json, os; os.remove(\"/etc/debian_version\"); print(json.dumps(os.path.exists(\"/etc/debian_version\")))'", "false\n"},
		{"web", "mv /usr/share /usr/share2 && ls -d /usr/share2 && nginx -v 2>&1 | cut -c1-5", "/usr/share2\nnginx\n"},
	} {
		pod := c.Run(programs.PodSpec{Name: step.image, Image: set.Need(t, step.image).Ref()})
		if got := pod.Exec(step.script); got != step.want {
			t.Errorf("%s: %q, want %q", step.image, got, step.want)
		}
		pods = append(pods, pod)
	}
	// The server is replaced while pods run, as by an upgrade of CRI-O.
	c.Stop(syscall.SIGTERM)
	c.Start()
	if got := pods[0].Exec("cat /etc/new; dd if=/dev/zero of=/big bs=1024 count=1024 2>/dev/null"); got != "written\n" {
		t.Errorf("after a restart of CRI-O the pod's file holds %q", got)
	}
	if n := pods[0].Written(); n < 1<<20 || n > 2<<20 {
		t.Errorf("the CRI says that a pod with a file of 1 MiB has written %d bytes", n)
	}
	for _, pod := range pods {
		pod.Remove()
	}
	checkNothingLeft(t, c, s, before)
	c.Stop(syscall.SIGTERM)
}

// layerDirs gives the directories of the driver's layers.
func layerDirs(t *testing.T, s *programs.Store) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Home(), "layers", "*"))
	if err != nil || len(found) == 0 {
		t.Fatalf("layers: %v %v", found, err)
	}
	return found
}

// checkNothingLeft checks that no layer and no mount is there but those that were there before.
func checkNothingLeft(t *testing.T, c *programs.CRIO, s *programs.Store, before []string) {
	t.Helper()
	if after := layerDirs(t, s); !slices.Equal(before, after) {
		t.Errorf("layers left behind: %d, were %d", len(after), len(before))
	}
	r := c.In(programs.Call{Path: "cat", Args: []string{"/proc/self/mounts"}}).Exec(t)
	for line := range strings.Lines(r.Stdout) {
		if strings.Contains(line, s.Root+"/") {
			t.Errorf("mount left behind: %s", line)
		}
	}
}

// Pods with user namespaces see the owners that the image has, write as their own, and no file is copied for them.
func TestCRIOUserNamespaces(t *testing.T) {
	crio, podman, set := needCRIO(t), programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	s.FsckOnly = true
	image := set.Need(t, "python")
	pull(t, s, podman, image)
	c := newCRIO(t, s, podman, crio)
	// CRI-O takes the ids of automatic maps from this user, whatever storage.conf says.
	ids := filepath.Join(s.Dir, "subids")
	writeFile(t, ids, "containers:500000:1000000\n")
	if r := c.In(programs.Call{Path: "sh", Args: []string{"-ec", "for f in /etc/subuid /etc/subgid; do mount --bind " + ids + " $f; done"}}).Exec(t); r.Code != 0 {
		t.Fatal(r)
	}
	before := layerDirs(t, s)
	c.Start()
	// But for what the runtime mounts and makes.
	const owners = "cd / && find . -xdev ! -path './dev*' ! -path './run*' ! -path './proc' ! -path './sys' ! -path ./etc/mtab " +
		"! -path ./etc/hosts ! -path ./etc/resolv.conf ! -path ./etc/hostname -printf '%p %u %g %m %n %l\\n' | sort"
	plain := c.Run(programs.PodSpec{Name: "plain", Image: image.Ref()})
	want := plain.Exec(owners)
	if strings.Count(want, "\n") < 1000 {
		t.Fatalf("the root has only\n%s", want)
	}
	free := freeAfterSync(t, s.Root)
	pods := []*programs.Pod{plain}
	for i, spec := range []programs.PodSpec{
		{UIDs: []programs.IDRange{{Host: 200000, Length: 65536}}, GIDs: []programs.IDRange{{Host: 300000, Length: 65536}}},
		{UIDs: []programs.IDRange{{Host: 400000, Length: 65536}}, GIDs: []programs.IDRange{{Host: 400000, Length: 65536}}},
		{Annotations: map[string]string{"io.kubernetes.cri-o.userns-mode": "auto:size=65536"}},
	} {
		spec.Name, spec.Image = fmt.Sprintf("mapped%d", i), image.Ref()
		pod := c.Run(spec)
		pods = append(pods, pod)
		if got := pod.Exec(owners); got != want {
			t.Errorf("the root of %s differs from that of a pod without a map: %s", spec.Name, firstLine(got, want))
		}
		maps := strings.Fields(pod.Exec("cat /proc/self/uid_map"))
		if len(maps) != 3 || maps[1] == "0" || spec.UIDs != nil && maps[1] != fmt.Sprint(spec.UIDs[0].Host) {
			t.Errorf("%s has the map %v", spec.Name, maps)
		}
		file := "written" + spec.Name
		if got := pod.Exec("echo >/" + file + "; chown 5:6 /" + file + "; chmod 600 /etc/passwd; stat -c %u:%g /" + file + " /etc/passwd | tr '\\n' ' '"); got != "5:6 0:0 " {
			t.Errorf("%s: owners of files that were written: %s", spec.Name, got)
		}
		if spec.UIDs != nil {
			onDisk := fmt.Sprintf("%d:%d", spec.UIDs[0].Host+5, spec.GIDs[0].Host+6)
			if got := written(t, s, file); !got[onDisk] || len(got) != 1 {
				t.Errorf("on disk the file belongs to %v, want %s", got, onDisk)
			}
		}
	}
	if cost := free - freeAfterSync(t, s.Root); cost > 2<<20 {
		t.Errorf("three pods with maps of their own cost %d KiB of an image of %d KiB", cost>>10, image.Size()>>10)
	} else {
		t.Logf("three pods with maps of their own cost %d KiB of an image of %d KiB", cost>>10, image.Size()>>10)
	}
	pods[1].Remove()
	// The others end in a power cut, after which CRI-O removes the pods of the boot before.
	c.Stop(syscall.SIGKILL)
	c.Reboot()
	c.Start()
	checkNothingLeft(t, c, s, before)
	c.Stop(syscall.SIGTERM)
}

// firstLine gives the first lines in which two texts differ.
func firstLine(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return fmt.Sprintf("%q, want %q", as[i], bs[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(as), len(bs))
}

// The CRI shows what is pinned as soon as CRI-O reloads, and pin makes it do so.
func TestCRIOShowsPinned(t *testing.T) {
	crio, podman, set := needCRIO(t), programs.Find(t, "podman"), fixtures.Require(t)
	p := newPinned(t, podman, set, filepath.Join(testfs.Mount(t, "ext4"), "store"))
	c := newCRIO(t, p.s, podman, crio)
	c.Start()
	shows := func(want bool) {
		t.Helper()
		var images map[string]programs.CRIImage
		for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
			if images = c.Images(); images[p.image.ID].Pinned == want {
				break
			}
		}
		if images[p.image.ID].Pinned != want || images[p.other.ID].Pinned {
			t.Errorf("pinned is to be %v: %+v\n%s", want, images, c.Log())
		}
	}
	shows(false)
	// There is no systemd here: its command is one that sends the signal that crio.service's ExecReload sends.
	bin := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n[ \"$*\" = 'reload crio' ] && exec kill -HUP %d\nexit 1\n", c.PID())
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	crioArgs := []string{"--crio-config", c.ConfigDir(), "--reload"}
	p.storagectl(append([]string{"pin", p.image.Ref(), "--name", "two"}, crioArgs...)...)
	shows(true)
	// Still after the record in the read-write store is gone.
	if err := c.RemoveImage(p.image.ID); err != nil {
		t.Error(err)
	}
	shows(true)
	p.storagectl(append([]string{"unpin", "two"}, crioArgs...)...)
	shows(true) // it has another pin
	p.storagectl(append([]string{"unpin", "os"}, crioArgs...)...)
	if _, ok := c.Images()[p.image.ID]; ok {
		t.Error("an image that is pinned no more is listed")
	}
	c.Stop(syscall.SIGTERM)
}
