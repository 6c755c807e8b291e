package programs

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A User is an account of the machine, with subordinate ids, that exists for one test.
type User struct {
	Name string
	ID   int
}

var accounts struct {
	sync.Mutex
	made int // by this process
}

// NewUser makes an account, or skips the test where there are no subordinate ids to be had.
func NewUser(t testing.TB) User {
	t.Helper()
	for _, tool := range []string{"useradd", "userdel", "setpriv", "newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no ordinary user to test with: %v", err)
		}
	}
	accounts.Lock() // the programs below wait for each other in vain
	defer accounts.Unlock()
	accounts.made++
	u := User{Name: fmt.Sprintf("ostree-test-%d-%d", os.Getpid(), accounts.made)}
	Must(t, "useradd", "--home-dir", "/nonexistent", "--no-create-home", "--shell", "/bin/sh", u.Name)
	t.Cleanup(func() {
		accounts.Lock()
		defer accounts.Unlock()
		exec.Command("userdel", "--force", u.Name).Run()
	})
	account, err := user.Lookup(u.Name)
	if err != nil {
		t.Fatal(err)
	}
	if u.ID, err = strconv.Atoi(account.Uid); err != nil {
		t.Fatal(err)
	}
	ranges, err := os.ReadFile("/etc/subuid")
	if err != nil || !strings.Contains(string(ranges), u.Name+":") {
		t.Skipf("useradd gives no subordinate ids here: %v", err)
	}
	return u
}

// A Rootless is what a user without rights has: a home with its own configuration, in which the driver is named, and a graphroot.
type Rootless struct {
	t       testing.TB
	user    User
	Dir     string
	Home    string
	Root    string // graphroot
	podman  Program
	runtime string // XDG_RUNTIME_DIR
}

// NewRootless makes a home in the new directory dir, where every program takes the given driver. At the end of the test the
// repository is checked with the real ostree, in the user's own namespace.
func NewRootless(t testing.TB, dir string, u User, podman Program, driver string) *Rootless {
	t.Helper()
	s := &Rootless{
		t: t, user: u, podman: podman,
		Dir: dir, Home: filepath.Join(dir, "home"), Root: filepath.Join(dir, "root"), runtime: filepath.Join(dir, "xdg"),
	}
	config := filepath.Join(s.Home, ".config", "containers")
	for _, d := range []string{config, s.Root, s.runtime} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.Write("containers.conf", strings.ReplaceAll(containersConf, "DIR", dir))
	s.Write("policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	s.Write("storage.conf", "[storage]\ndriver = \""+driver+"\"\ngraphroot = \""+s.Root+"\"\nrunroot = \""+filepath.Join(dir, "run")+"\"\n")
	Must(t, "chown", "-R", u.Name+":", dir)
	if out, err := exec.Command("setpriv", s.as(podman.Path, "--version")...).CombinedOutput(); err != nil {
		t.Skipf("user %s cannot run %s: %v %s", u.Name, podman.Path, err, out)
	}
	t.Cleanup(s.finish)
	return s
}

// Write writes a file of the user's ~/.config/containers.
func (s *Rootless) Write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.Home, ".config", "containers", name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// as gives the arguments of setpriv that run a command as the user, in an environment of its own.
func (s *Rootless) as(command ...string) []string {
	id := strconv.Itoa(s.user.ID)
	return append([]string{
		"--reuid", id, "--regid", id, "--init-groups", "env", "-i",
		"HOME=" + s.Home, "USER=" + s.user.Name, "PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + s.runtime, "LC_ALL=C", "TMPDIR=" + s.Home,
		"BUILDAH_ISOLATION=chroot",
	}, command...)
}

// Call is a call of a command of the machine as the user.
func (s *Rootless) Call(command ...string) Call {
	return Call{Path: "setpriv", Args: s.as(command...), Dir: s.Home}
}

// Podman runs podman as the user.
func (s *Rootless) Podman(args ...string) string {
	s.t.Helper()
	return s.Must(s.Call(append([]string{s.podman.Path}, args...)...))
}

// Must runs a call that must work, and gives its standard output without the last newline.
func (s *Rootless) Must(c Call) string {
	s.t.Helper()
	r := c.Exec(s.t)
	if r.Code != 0 {
		s.t.Fatal(r)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Fsck checks the repository with the real ostree, inside the user's namespace: the owners in objects are those that are seen there.
func (s *Rootless) Fsck(root string) {
	s.t.Helper()
	repo := filepath.Join(root, "ostree", "repo")
	if _, err := os.Stat(repo); err != nil {
		return
	}
	if r := s.Call(s.podman.Path, "unshare", "ostree", "fsck", "--quiet", "--repo="+repo).Exec(s.t); r.Code != 0 {
		s.t.Error(r)
	}
}

// finish ends what the user left running, the process that keeps the namespace last.
func (s *Rootless) finish() {
	s.Call(s.podman.Path, "rm", "--all", "--force", "--time=0").Exec(s.t)
	s.Fsck(s.Root)
	pids, _ := filepath.Glob(filepath.Join(s.runtime, "libpod", "tmp", "pause.pid"))
	more, _ := filepath.Glob(filepath.Join(s.Dir, "tmp", "libpod", "pause.pid"))
	for _, file := range append(pids, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
