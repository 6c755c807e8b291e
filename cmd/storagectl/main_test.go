package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.podman.io/storage/pkg/reexec"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	testscript.Main(m, map[string]func(){
		"storagectl": func() { crioDir = os.Getenv("HOME") + "/no-crio"; main() },
		"mkimage":    mkimage,
		"damage":     damage,
		"label":      printLabels,
		"holdlock":   holdLock,
		"onejson":    oneJSON,
	})
}

// TestScripts reads testdata aloud: a script a verb, each with a store of its own.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("stores need root here")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition: func(cond string) (bool, error) {
			if cond == "transports" {
				return hasTransports, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code,
		},
	})
}

// setup points everything at a store below the script's directory.
func setup(e *testscript.Env) error {
	conf := filepath.Join(e.WorkDir, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"ostree\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(e.WorkDir, "root"), filepath.Join(e.WorkDir, "run"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	policy := filepath.Join(e.WorkDir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		return err
	}
	e.Setenv("CONTAINERS_STORAGE_CONF", conf)
	e.Setenv("STORAGE_OPTS", "pinned_store="+filepath.Join(e.WorkDir, "pinned"))
	e.Setenv("POLICY", policy)
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("TMPDIR", e.WorkDir)
	e.Setenv("PATH", e.Getenv("PATH")+":/usr/sbin:/usr/bin:/sbin:/bin")
	e.Defer(func() { unmountBelow(e.WorkDir) })
	return nil
}

// unmountBelow takes away what a script left mounted.
func unmountBelow(dir string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
}

// holdLock is a program of the scripts: it locks a file as a process that changes the pinned store does, says so, and stays.
func holdLock() {
	f, err := os.OpenFile(os.Args[1], os.O_RDWR|os.O_CREATE, 0o600)
	must(err)
	must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	must(os.WriteFile(os.Args[1]+".held", nil, 0o600))
	time.Sleep(time.Minute)
}

// oneJSON is a program of the scripts: it wants one JSON document on its standard input, and nothing after it.
func oneJSON() {
	d := json.NewDecoder(os.Stdin)
	var v any
	must(d.Decode(&v))
	if err := d.Decode(&v); !errors.Is(err, io.EOF) {
		must(fmt.Errorf("more than one document: %v", err))
	}
}

// code runs a command and wants an exit code: code 2 storagectl check.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec("sh", append([]string{"-c", `"$@"; c=$?; test $c = ` + args[0] + ` || { echo "exit code $c" >&2; exit 1; }`, "sh"}, args[1:]...)...)
	if err != nil {
		ts.Fatalf("want exit code %s: %v", args[0], err)
	}
}
