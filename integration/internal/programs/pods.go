package programs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// upLimit is how long CRI-O may take to start or to stop.
const upLimit = time.Minute

// ConfigDir is CRI-O's counterpart of /etc/crio, with crio.conf and crio.conf.d.
func (c *CRIO) ConfigDir() string { return c.dir }

// State is a file that CRI-O remembers itself by: "version", "version-persist" or "clean.shutdown".
func (c *CRIO) State(name string) string { return filepath.Join(c.dir, name) }

// Forget removes such files, as a reboot, an upgrade or a power cut leaves them missing.
func (c *CRIO) Forget(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if err := os.Remove(c.State(name)); err != nil && !os.IsNotExist(err) {
			c.t.Fatal(err)
		}
	}
}

// args are the arguments before a subcommand, or of the server.
func (c *CRIO) args(rest ...string) []string {
	return append([]string{"--config", filepath.Join(c.dir, "crio.conf"), "--config-dir", filepath.Join(c.dir, "crio.conf.d")}, rest...)
}

// Command runs one of CRI-O's commands, such as wipe, beside the server or without one.
func (c *CRIO) Command(args ...string) Result {
	c.t.Helper()
	call := c.In(Call{Path: c.program.Path, Args: c.args(args...), Env: c.s.env})
	return call.Exec(c.t)
}

// Start starts the server and waits until it answers.
func (c *CRIO) Start(flags ...string) {
	c.t.Helper()
	call := c.In(Call{Path: c.program.Path, Args: c.args(flags...)})
	log, err := os.OpenFile(c.State("crio.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	os.Remove(c.State("crio.sock"))
	cmd := exec.Command(call.Path, call.Args...)
	cmd.Env = append(os.Environ(), c.s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	c.server, c.ended = cmd, ended
	for until := time.Now().Add(upLimit); ; time.Sleep(50 * time.Millisecond) {
		if err := c.call("Version", nil, nil); err == nil {
			return
		} else if time.Now().After(until) {
			c.t.Fatalf("CRI-O does not answer: %v\n%s", err, c.Log())
		}
		select {
		case <-ended:
			c.t.Fatalf("CRI-O ended at once:\n%s", c.Log())
		default:
		}
	}
}

// Log is the end of what the server said.
func (c *CRIO) Log() string {
	text, _ := os.ReadFile(c.State("crio.log"))
	return tail(string(text))
}

// signal sends the server a signal.
func (c *CRIO) signal(s syscall.Signal) {
	c.t.Helper()
	pid := c.PID()
	if pid == 0 {
		c.t.Fatalf("CRI-O is not there any more:\n%s", c.Log())
	}
	if err := syscall.Kill(pid, s); err != nil {
		c.t.Fatal(err)
	}
}

// PID is the server's, 0 if none runs; nsenter is between it and us.
func (c *CRIO) PID() int {
	if c.server == nil {
		return 0
	}
	return childOf(c.server.Process.Pid)
}

// Stop ends the server, if it runs, by SIGTERM as systemd does, or by SIGKILL. Pods go on running.
func (c *CRIO) Stop(s syscall.Signal) {
	c.t.Helper()
	if c.server == nil {
		return
	}
	c.signal(s)
	select {
	case <-c.ended:
	case <-time.After(upLimit):
		c.t.Fatalf("CRI-O does not end:\n%s", c.Log())
	}
	c.server = nil
}

// call calls a method of the CRI. A reply may be nil.
func (c *CRIO) call(method string, request, reply any) error {
	if request == nil {
		request = struct{}{}
	}
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.client, c.State("crio.sock"), method)
	cmd.Stdin = strings.NewReader(string(text))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", method, err, strings.TrimSpace(said.String()))
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(out, reply)
}

// must is call for what has to work.
func (c *CRIO) must(method string, request, reply any) {
	c.t.Helper()
	if err := c.call(method, request, reply); err != nil {
		c.t.Fatalf("%v\n%s", err, c.Log())
	}
}

// A CRIImage is an image as the CRI shows it.
type CRIImage struct {
	ID     string   `json:"id"`
	Tags   []string `json:"repoTags"`
	Pinned bool     `json:"pinned"`
}

// Images lists the images.
func (c *CRIO) Images() map[string]CRIImage {
	c.t.Helper()
	var reply struct {
		Images []CRIImage `json:"images"`
	}
	c.must("ListImages", nil, &reply)
	images := map[string]CRIImage{}
	for _, i := range reply.Images {
		images[i.ID] = i
	}
	return images
}

// RemoveImage asks for an image's removal.
func (c *CRIO) RemoveImage(image string) error {
	return c.call("RemoveImage", map[string]any{"image": map[string]any{"image": image}}, nil)
}

// Used gives the IDs of the images that containers use.
func (c *CRIO) Used() map[string]bool {
	c.t.Helper()
	var reply struct {
		Containers []struct {
			ImageID string `json:"imageId"`
		} `json:"containers"`
	}
	c.must("ListContainers", nil, &reply)
	used := map[string]bool{}
	for _, container := range reply.Containers {
		used[container.ImageID] = true
	}
	return used
}

// An IDRange maps the ids of a pod to those of the host.
type IDRange struct {
	Container uint32 `json:"containerId"`
	Host      uint32 `json:"hostId"`
	Length    uint32 `json:"length"`
}

// A PodSpec says what a pod is to be.
type PodSpec struct {
	Name        string
	Image       string
	UIDs, GIDs  []IDRange // a user namespace with these maps; none without
	Annotations map[string]string
}

// A Pod is a pod with one container, whose process waits.
type Pod struct {
	c                  *CRIO
	Sandbox, Container string
}

// Run makes and starts a pod.
func (c *CRIO) Run(spec PodSpec) *Pod {
	c.t.Helper()
	namespaces := map[string]any{"network": "POD", "pid": "CONTAINER", "ipc": "POD"}
	if spec.UIDs != nil {
		namespaces["usernsOptions"] = map[string]any{"mode": "POD", "uids": spec.UIDs, "gids": spec.GIDs}
	}
	security := map[string]any{"securityContext": map[string]any{"namespaceOptions": namespaces}}
	config := map[string]any{
		"metadata":     map[string]any{"name": spec.Name, "namespace": "default", "uid": "uid-" + spec.Name},
		"logDirectory": c.dir,
		"annotations":  spec.Annotations,
		"linux":        map[string]any{"cgroupParent": c.cgroup(), "securityContext": security["securityContext"]},
	}
	p := &Pod{c: c}
	var sandbox struct {
		ID string `json:"podSandboxId"`
	}
	c.must("RunPodSandbox", map[string]any{"config": config}, &sandbox)
	p.Sandbox = sandbox.ID
	var container struct {
		ID string `json:"containerId"`
	}
	c.must("CreateContainer", map[string]any{
		"podSandboxId": p.Sandbox, "sandboxConfig": config,
		"config": map[string]any{
			"metadata": map[string]any{"name": "c"},
			"image":    map[string]any{"image": spec.Image, "userSpecifiedImage": spec.Image},
			"command":  []string{"/bin/sh", "-c", "trap exit TERM; while :; do sleep 0.1 || /bin/busybox sleep 0.1; done"},
			"logPath":  spec.Name + ".log",
			"linux":    security,
		},
	}, &container)
	p.Container = container.ID
	c.must("StartContainer", map[string]any{"containerId": p.Container}, nil)
	return p
}

// Exec runs a shell command in the pod's container and gives what it printed.
func (p *Pod) Exec(script string) string {
	p.c.t.Helper()
	var reply struct {
		Stdout, Stderr []byte
		ExitCode       int
	}
	p.c.must("ExecSync", map[string]any{"containerId": p.Container, "cmd": []string{"/bin/sh", "-ec", script}, "timeout": 60}, &reply)
	if reply.ExitCode != 0 {
		p.c.t.Fatalf("in the pod, %s: exit status %d\n%s%s", script, reply.ExitCode, reply.Stdout, reply.Stderr)
	}
	return string(reply.Stdout)
}

// Written is how many bytes the pod's container has in its writable layer, as the CRI says.
func (p *Pod) Written() int64 {
	p.c.t.Helper()
	var reply struct {
		Stats struct {
			WritableLayer struct {
				UsedBytes struct {
					Value int64 `json:"value,string"`
				} `json:"usedBytes"`
			} `json:"writableLayer"`
		} `json:"stats"`
	}
	p.c.must("ContainerStats", map[string]any{"containerId": p.Container}, &reply)
	return reply.Stats.WritableLayer.UsedBytes.Value
}

// Remove stops and removes the pod.
func (p *Pod) Remove() {
	p.c.t.Helper()
	p.c.must("StopPodSandbox", map[string]any{"podSandboxId": p.Sandbox}, nil)
	p.c.must("RemovePodSandbox", map[string]any{"podSandboxId": p.Sandbox}, nil)
}
