package programs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CRIOBinary gives the CRI-O that the variable CRIO names: a binary that was built with the driver (docs/programs.md says how). Its
// program pinns is looked for beside it, then in PATH.
func CRIOBinary(t testing.TB) (p Program, ok bool) {
	t.Helper()
	path := os.Getenv("CRIO")
	if path == "" {
		return p, false
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatalf("CRIO names no CRI-O: %v", err)
	}
	version, _, _ := strings.Cut(string(out), "\n")
	return Program{Name: "crio", Path: path, Version: version}, true
}

// A CRIO is a CRI-O with a configuration of its own on a store. It runs in namespaces of its own (mounts, network, processes), which end
// with everything in them: pods, their mounts and monitors.
type CRIO struct {
	t       testing.TB
	s       *Store
	program Program
	client  string
	dir     string // everything is below it
	unshare string
	holder  *exec.Cmd
	keep    io.Closer     // while it is open, the namespaces live
	gone    chan struct{} // closed when they are gone
	pid     int           // of the process that holds them
	server  *exec.Cmd     // nil when CRI-O does not run
	ended   chan struct{} // closed when it has ended
}

// Inside, the machine's own state is out of reach: /run and /var/lib are empty, what is written to /etc goes with the namespace (CRI-O
// makes /etc/crio/auth, whatever its configuration), and the cgroups are those of version 2.
const holdNamespaces = `set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /run/crio /run/etc /run/etc-work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work etc /etc
rm -rf /etc/crio
ip link set lo up
echo ready
exec cat`

const crioConf = `[crio]
root = "ROOT"
runroot = "RUN"
storage_driver = "ostree"
storage_option = [OPTIONS]
log_dir = "DIR/pods"
version_file = "DIR/version"
version_file_persist = "DIR/version-persist"
clean_shutdown_file = "DIR/clean.shutdown"
internal_wipe = true
internal_repair = true
[crio.api]
listen = "DIR/crio.sock"
stream_address = "127.0.0.1"
stream_port = "0"
[crio.image]
pause_image = "PAUSE"
signature_policy = "POLICY"
signature_policy_dir = "DIR/policies"
[crio.network]
network_dir = "DIR/cni"
plugin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
[crio.nri]
enable_nri = false
[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pids_limit = 0
apparmor_profile = "unconfined"
container_exits_dir = "DIR/exits"
container_attach_socket_dir = "DIR/attach"
namespaces_dir = "DIR/ns"
pinns_path = "PINNS"
hooks_dir = []
default_ulimits = ["nofile=1024:1024"]
[crio.runtime.runtimes.runc]
runtime_path = "RUNC"
runtime_type = "oci"
runtime_root = "DIR/runc"
monitor_path = "CONMON"
monitor_cgroup = "pod"
allowed_annotations = ["io.kubernetes.cri-o.userns-mode"]
`

const crioNetwork = `{"cniVersion": "0.4.0", "name": "test", "plugins": [
	{"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "dataDir": "DIR/addresses", "ranges": [[{"subnet": "10.88.99.0/24"}]]}}]}
`

// NewCRIO configures CRI-O on a store and starts its namespaces. The pause image has to be in the store; no process of it is ever started.
func NewCRIO(t testing.TB, s *Store, program Program, client, pause string) *CRIO {
	t.Helper()
	c := &CRIO{t: t, s: s, program: program, client: client, dir: filepath.Join(s.Dir, "crio")}
	tools := map[string]string{} // by name, their paths
	for _, name := range []string{"runc", "conmon", "unshare", "nsenter", "ip", "pinns"} {
		path, err := exec.LookPath(name)
		if beside := filepath.Join(filepath.Dir(program.Path), name); name == "pinns" && unix.Access(beside, unix.X_OK) == nil {
			path, err = beside, nil
		}
		if err != nil {
			t.Skipf("CRI-O needs %s: %v", name, err)
		}
		tools[name] = path
	}
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		t.Skipf("CRI-O needs CNI's plugins (containernetworking-plugins): %v", err)
	}
	for _, d := range []string{"cni", "crio.conf.d", "ns", "exits", "attach"} {
		if err := os.MkdirAll(filepath.Join(c.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var options []string
	for _, o := range s.Options {
		options = append(options, strconv.Quote(o))
	}
	values := strings.NewReplacer("DIR", c.dir, "ROOT", s.Root, "RUNC", tools["runc"], "RUN", s.RunRoot, "OPTIONS", strings.Join(options, ", "),
		"PAUSE", pause, "POLICY", filepath.Join(s.Dir, "policy.json"), "PINNS", tools["pinns"], "CONMON", tools["conmon"])
	s.write(filepath.Join(c.dir, "crio.conf"), values.Replace(crioConf))
	s.write(filepath.Join(c.dir, "cni", "10-test.conflist"), values.Replace(crioNetwork))
	c.unshare = tools["unshare"]
	t.Cleanup(c.Leave)
	c.hold()
	return c
}

// Configure sets options in a drop-in, for the next start.
func (c *CRIO) Configure(text string) {
	c.t.Helper()
	c.s.write(filepath.Join(c.dir, "crio.conf.d", "50-test.conf"), text)
}

// Reboot ends all processes and mounts, and empties what is on a tmpfs on a real host: /run, the run root and CRI-O's version file.
func (c *CRIO) Reboot() {
	c.t.Helper()
	c.Leave()
	if err := os.RemoveAll(c.s.RunRoot); err != nil {
		c.t.Fatal(err)
	}
	c.Forget("version")
	c.hold()
}

// hold starts the namespaces. They end when our end of a pipe closes, so that not even a killed test leaves them behind.
func (c *CRIO) hold() {
	c.t.Helper()
	c.holder = exec.Command(c.unshare, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private", "sh", "-c", holdNamespaces)
	in, err := c.holder.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := c.holder.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	var said strings.Builder
	c.holder.Stderr = &said
	if err := c.holder.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.keep, c.gone = in, make(chan struct{})
	line := make([]byte, 16)
	n, _ := out.Read(line)
	c.pid = childOf(c.holder.Process.Pid)
	go func() {
		c.holder.Wait()
		close(c.gone)
	}()
	if string(line[:n]) != "ready\n" || c.pid == 0 {
		c.Leave()
		c.t.Fatalf("the namespaces for CRI-O cannot be made: %s", &said)
	}
}

// childOf gives the one child that a process has.
func childOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return child
}

// Leave ends the namespaces and all that is in them, at once.
func (c *CRIO) Leave() {
	if c.keep == nil {
		return
	}
	c.keep.Close()
	c.keep = nil
	select {
	case <-c.gone:
	case <-time.After(time.Minute):
		c.t.Error("CRI-O's namespaces do not end")
	}
	if c.server != nil {
		<-c.ended
		c.server = nil
	}
	c.removeCgroups()
}

// cgroup is the parent of the pods' cgroups.
func (c *CRIO) cgroup() string { return fmt.Sprintf("/ostree-storage-%d", os.Getpid()) }

// removeCgroups removes what the runtime made: nobody does it for pods that were killed.
func (c *CRIO) removeCgroups() {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		c.t.Error(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			top := f[1] + c.cgroup()
			for wait := time.Millisecond; ; wait *= 2 {
				err := removeDirs(top)
				if err == nil {
					break
				}
				if wait > 5*time.Second {
					c.t.Errorf("remove a cgroup: %v", err)
					break
				}
				time.Sleep(wait) // the kernel ends its processes meanwhile
			}
		}
	}
}

// removeDirs removes a directory and the directories in it.
func removeDirs(top string) error {
	entries, err := os.ReadDir(top)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeDirs(filepath.Join(top, e.Name())); err != nil {
				return err
			}
		}
	}
	return syscall.Rmdir(top)
}

// In turns a call into one inside the namespaces.
func (c *CRIO) In(call Call) Call {
	call.Args = append([]string{"--target", strconv.Itoa(c.pid), "--mount", "--net", "--pid", call.Path}, call.Args...)
	call.Path = "nsenter"
	return call
}
