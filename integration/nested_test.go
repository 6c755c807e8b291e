package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// A nest is a user namespace as a container with a map of its own has it: root in it has the ids from 300000 on of the host.
type nest struct {
	t   *testing.T
	env []string
}

const nestOwner, nestSize = 300000, 200000

// run runs a command as root of a new namespace with the nest's map.
func (n nest) run(command ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `mount -t tmpfs tmpfs /run && exec "$@"`, "sh"}, command...)...)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nestOwner, Size: nestSize}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	cmd.Env = n.env
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errOut, 5*time.Second
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, out.String(), errOut.String())
	}
	return strings.TrimSpace(out.String())
}

// Podman within a container that has a user namespace: its store is made there, and its containers have maps within the map.
func TestNestedUserNamespaces(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	image := set.Need(t, "web")
	dir := testfs.Mount(t, "ext4")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	store := programs.NewStore(t, filepath.Join(dir, "s"), "ostree") // for its settings: its graphroot stays empty
	s := store.Dir
	archive := filepath.Join(s, "image.tar")
	if err := image.WriteArchive(archive); err != nil {
		t.Fatal(err)
	}
	programs.Must(t, "chown", "-R", "300000:300000", s)
	n := nest{t, append(store.Call(podman).Env, "PATH="+os.Getenv("PATH"), "HOME="+s, "_CONTAINERS_USERNS_CONFIGURED=done", "_CONTAINERS_ROOTLESS_UID=1000", "XDG_RUNTIME_DIR=/run")}
	run := func(args ...string) string {
		t.Helper()
		return n.run(append([]string{podman.Path, "--root", s + "/nested", "--runroot", s + "/nested-run", "--storage-driver=ostree", "--storage-opt=pinned_store=none"}, args...)...)
	}
	run("load", "--quiet", "-i", archive)
	if out := run("run", "--rm", "--network=none", image.ID, "stat", "-c", "%u:%g", "/bin/ls"); out != "0:0" {
		t.Errorf("in the nest: %q", out)
	}
	out := run("run", "--network=none", "--uidmap=0:1000:65536", "--gidmap=0:70000:65536", image.ID, "/bin/sh", "-ec",
		"stat -c %u:%g /bin/ls /etc/debian_version; touch /made; chown 33:34 /made; cat /proc/self/uid_map")
	if want := "0:0 0:0 0 1000 65536"; strings.Join(strings.Fields(out), " ") != want {
		t.Errorf("in a nest of the nest: %q, want %s", out, want)
	}
	made, err := filepath.Glob(filepath.Join(s, "nested/ostree/layers/*/diff/made"))
	if err != nil || len(made) != 1 {
		t.Fatalf("%d files were made, %v", len(made), err)
	}
	if out := programs.Must(t, "stat", "-c", "%u:%g", made[0]); strings.TrimSpace(out) != fmt.Sprintf("%d:%d", nestOwner+1000+33, nestOwner+70000+34) {
		t.Errorf("what it made belongs to %s on the host", out)
	}
	for _, want := range []string{"user.overlay", `Supports shifting: "false"`, "Layers with copied owners: '1 layers,"} {
		if info := run("info"); !strings.Contains(info, want) {
			t.Errorf("status does not say %q:\n%s", want, info)
		}
	}
	n.run("ostree", "fsck", "--quiet", "--repo="+s+"/nested/ostree/repo")
	ctl, err := storagectl()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s, "policy/contexts/files/file_contexts"), "/.*\ta:b:c:s0\n")
	// Where the kernel has SELinux built in and no policy, owners of files may set labels; else it takes root of the host.
	labelled := n.run("sh", "-c", `"$@" 2>&1 && echo worked; true`, "sh", ctl, "--root="+s+"/nested", "--runroot="+s+"/nested-run", "--storage-opt=pinned_store=none",
		"checkout", "--copy", "--selinux-policy="+s+"/policy", image.ID, s+"/out")
	label := make([]byte, 64)
	size, err := unix.Lgetxattr(filepath.Join(s, "out/bin/ls"), "security.selinux", label)
	worked := strings.HasSuffix(labelled, "worked") && err == nil && string(label[:size]) == "a:b:c:s0\x00"
	if refused := strings.Contains(labelled, "takes no SELinux labels") && strings.Contains(labelled, "user namespace"); worked == refused {
		t.Errorf("labels in the nest: %v, %s", err, labelled)
	}
	run("rmi", "--all", "--force")
	if left, err := filepath.Glob(filepath.Join(s, "nested/ostree/layers/*")); err != nil || len(left) != 0 {
		t.Errorf("%d layers are left, %v", len(left), err)
	}
	if left := mountsBelow(t, s); len(left) != 0 {
		t.Errorf("left mounted: %v", left)
	}
}
