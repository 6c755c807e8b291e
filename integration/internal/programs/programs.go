// Package programs runs real container programs on private stores: podman, buildah, skopeo and the
// containers-storage command as hack/build-* makes them, and Debian's own podman with overlay for comparison.
//
// A program that was not built skips the test with the reason. After each test every store with the ostree driver is
// examined with the real ostree command and with our own fsck.
package programs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// limit is the longest that one command may take.
const limit = 5 * time.Minute

// A Program is a binary and what is known about it.
type Program struct {
	Name    string // "podman", "buildah", "skopeo", "containers-storage", "containers-storage-legacy" or "stock podman"
	Path    string
	Version string // one line that names the version and the storage module
}

// Find gives a program that hack/build-programs makes. The test's log says which version it is.
func Find(t testing.TB, name string) Program {
	t.Helper()
	dir := os.Getenv("OSTREE_STORAGE_BIN")
	if dir == "" {
		root, err := fixtures.ModuleRoot()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, "build", "bin")
	}
	p := Program{Name: name, Path: filepath.Join(dir, name)}
	version, err := os.ReadFile(p.Path + ".version")
	if err != nil {
		t.Skipf("%s is not built: run hack/build-programs", name)
	}
	if os.Geteuid() != 0 {
		t.Skipf("%s on private stores needs root", name)
	}
	p.Version = strings.TrimSpace(string(version))
	t.Logf("program: %s", p.Version)
	return p
}

// Stock gives the podman that the machine's distribution installed.
func Stock(t testing.TB) Program {
	t.Helper()
	path, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("no podman of the distribution is installed")
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	p := Program{Name: "stock podman", Path: path, Version: "stock " + strings.TrimSpace(string(out))}
	t.Logf("program: %s", p.Version)
	return p
}

// A Result is what a command left behind.
type Result struct {
	Command string
	Stdout  string
	Stderr  string
	Code    int // exit status, -1 if a signal ended it
	Took    time.Duration
}

func (r Result) String() string {
	return fmt.Sprintf("%s\nexit status %d after %.1fs\n%s%s", r.Command, r.Code, r.Took.Seconds(), tail(r.Stdout), tail(r.Stderr))
}

func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// A Call is a command to run.
type Call struct {
	Path  string
	Args  []string
	Env   []string // added to our own
	Dir   string   // working directory
	Input []byte   // standard input
}

// Exec runs a command to its end.
func (c Call) Exec(t testing.TB) Result {
	t.Helper()
	parent := t.Context()
	if parent.Err() != nil { // in a cleanup
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = slices.DeleteFunc(append(os.Environ(), c.Env...), func(v string) bool { return strings.HasPrefix(v, "STORAGE_") })
	cmd.Dir = c.Dir
	cmd.Stdin = bytes.NewReader(c.Input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Monitors of containers may inherit the pipes; they must not keep us waiting.
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	err := cmd.Run()
	r := Result{Command: c.Path + " " + strings.Join(c.Args, " "), Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(began)}
	if cmd.ProcessState == nil {
		t.Fatalf("start %s: %v", c.Path, err)
	}
	r.Code = cmd.ProcessState.ExitCode()
	if ctx.Err() != nil {
		t.Fatalf("%v\nnot done after %v", r, limit)
	}
	return r
}

// Must runs a tool of the machine and gives its standard output; a failure ends the test.
func Must(t testing.TB, path string, args ...string) string {
	t.Helper()
	r := Call{Path: path, Args: args}.Exec(t)
	if r.Code != 0 {
		t.Fatal(r)
	}
	return r.Stdout
}
