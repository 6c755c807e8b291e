package powercut_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// privately runs the calling test again in a mount namespace of its own, where nobody else's processes hold what it mounts, and
// reports whether this is that second run. Otherwise the test is over.
func privately(t *testing.T) bool {
	t.Helper()
	const variable = "OSTREE_TEST_PRIVATE"
	if os.Getenv(variable) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces and loop devices need root")
	}
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	cmd := exec.Command(os.Args[0], "-test.run="+strings.Join(parts, "/"), "-test.v", "-test.timeout=0")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err != nil:
		t.Fatalf("%v\n%s", err, text)
	case strings.Contains(text, "--- SKIP: "+t.Name()):
		t.Skipf("%s", text)
	default:
		t.Logf("%s", text)
	}
	return false
}

// A machine runs a guest until its power is cut.
type machine struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	end *os.File
}

// boot starts a machine with a boot id of its own, in which run is the run directory. Its processes end with it.
func boot(t *testing.T, run, id string) *machine {
	t.Helper()
	for _, d := range []string{run, filepath.Join(filepath.Dir(run), "tmp")} { // both are a tmpfs on real machines
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(filepath.Dir(run), "boot_id")
	if err := os.WriteFile(file, []byte(id+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	const script = `mount -t proc proc /proc && mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && "$@"; exit $?`
	m := &machine{t: t, cmd: exec.Command("unshare", "--fork", "--kill-child", "--pid", "--mount", "--propagation", "private",
		"bash", "-c", script, "bash", file, os.Args[0], "-test.run=^TestGuest$", "-test.timeout=0")}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m.cmd.Env = append(os.Environ(), guestVariable+"=1")
	m.cmd.ExtraFiles = []*os.File{w}
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	m.out, m.end = json.NewDecoder(r), r
	return m
}

func (m *machine) send(r request) {
	m.t.Helper()
	text, err := json.Marshal(r)
	if err == nil {
		_, err = m.in.Write(append(text, '\n'))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// run runs a program in the machine.
func (m *machine) run(c call) answer {
	m.t.Helper()
	m.send(request{Run: &c})
	return m.receive()
}

// must is run for what has to work.
func (m *machine) must(c call) answer {
	m.t.Helper()
	a := m.run(c)
	if a.Code != 0 {
		m.t.Fatalf("%s %s\nexit status %d\n%s", c.Path, strings.Join(c.Args, " "), a.Code, a.Out)
	}
	return a
}

func (m *machine) receive() answer {
	m.t.Helper()
	var a answer
	if err := m.out.Decode(&a); err != nil {
		m.t.Fatalf("the machine says no more: %v", err)
	}
	return a
}

// halt ends all processes of the machine, at once.
func (m *machine) halt() {
	_ = m.in.Close()
	_ = m.cmd.Process.Kill() // bash, which is its child and the namespace's first process, goes with it
	_ = m.cmd.Wait()
	_ = m.end.Close()
}

// bootID makes up the id of a boot.
func bootID(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", n, os.Getpid()) }
