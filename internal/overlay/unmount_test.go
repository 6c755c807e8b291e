package overlay_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"golang.org/x/sys/unix"
)

func lockThread() { runtime.LockOSThread() }

// tmpfs mounts a tmpfs at dir until the test ends.
func tmpfs(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// mountLines returns the lines of mountinfo with mounts under dir. There are others: tests run beside each other.
func mountLines(t testing.TB, dir string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool { return !strings.Contains(line, " "+dir) })
}

func wantMounted(t testing.TB, path string, want bool) {
	t.Helper()
	if got, err := overlay.Mounted(path); err != nil || got != want {
		t.Errorf("mounted at %s: %v, %v; want %v", path, got, err, want)
	}
}

func TestUnmount(t *testing.T) {
	needRoot(t)
	m := layers(t, t.TempDir(), 2)
	wantMounted(t, m.Target, false)
	mount(t, m, overlay.Way{})
	wantMounted(t, m.Target, true)
	dirs(t, m.Target, "inside")
	wantMounted(t, m.Target+"/inside", false)
	wantMounted(t, m.Upper, false)

	busy, err := os.Open(m.Target + "/top")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for range 3 {
		if err := overlay.Unmount(m.Target); err != nil {
			t.Error(err)
		}
		wantMounted(t, m.Target, false)
	}
	if b := make([]byte, 1); true {
		if n, err := busy.Read(b); n != 1 || err != nil {
			t.Errorf("read through a detached mount: %d, %v", n, err)
		}
	}
}

func TestNotMounted(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	write(t, dir+"/file", "")
	if err := os.Symlink("/proc", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + "/none", dir + "/file", dir + "/file/under", dir + "/link", dir + "/none/" + strings.Repeat("x/", 3000)} {
		wantMounted(t, path, false)
		if err := overlay.Unmount(path); err != nil {
			t.Error(err)
		}
	}
	tmpfs(t, dirs(t, dir, "tmpfs")[0])
	wantMounted(t, dir+"/tmpfs", false)
	if err := overlay.Unmount(dir + "/tmpfs"); err != nil {
		t.Error(err)
	}
}

// A private way leaves no trace in the mount namespace, and the first thread stays in its own.
func TestPrivateWaysLeaveNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		ns, err := os.Readlink("/proc/self/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		// What is mounted on a shared mount appears on its peers as well.
		base, peer := t.TempDir(), t.TempDir()
		if err := errors.Join(unix.Mount(base, base, "", unix.MS_BIND, ""), unix.Mount("", base, "", unix.MS_SHARED, ""), unix.Mount(base, peer, "", unix.MS_BIND, "")); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(base, unix.MNT_DETACH)
		defer unix.Unmount(peer, unix.MNT_DETACH)
		m := mapped(t, base+"/layers")
		m.IDMap, m.ReadOnly = maps()[0], true
		for range 20 {
			if err := m.DoBy(w); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{base, peer} {
				if lines := mountLines(t, dir+"/layers"); len(lines) != 1 {
					t.Errorf("mounts:\n%s", strings.Join(lines, "\n"))
				}
			}
			if err := overlay.Unmount(m.Target); err != nil {
				t.Fatal(err)
			}
		}
		if after, err := os.Readlink("/proc/self/ns/mnt"); after != ns || err != nil {
			t.Errorf("mount namespace %s, was %s, %v", after, ns, err)
		}
		for _, dir := range []string{base, peer} {
			for _, line := range mountLines(t, dir+"/layers") {
				t.Errorf("left behind: %s", line)
			}
		}
	})
}

// TestKilled kills a process that mounts, wherever it is: there may be its mount, and nothing else.
func TestKilled(t *testing.T) {
	if base := os.Getenv("OVERLAY_TEST_KILLED"); base != "" {
		m := mapped(t, base)
		m.IDMap, m.ReadOnly, m.Empty = maps()[0], true, ""
		write(t, base+"/ready", "")
		for {
			if err := m.DoBy(overlay.Ways[os.Getenv("OVERLAY_TEST_WAY")]); err != nil {
				t.Fatal(err)
			}
			if err := overlay.Unmount(m.Target); err != nil {
				t.Fatal(err)
			}
		}
	}
	needRoot(t)
	for _, way := range []string{"fd", "fd private", "mount private"} {
		t.Run(way, func(t *testing.T) {
			for i := range 5 {
				base := t.TempDir()
				cmd := exec.Command("/proc/self/exe", "-test.run", "^TestKilled$")
				cmd.Env = append(os.Environ(), "OVERLAY_TEST_KILLED="+base, "OVERLAY_TEST_WAY="+way)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
					if _, err := os.Stat(base + "/ready"); err == nil {
						break
					}
				}
				time.Sleep(time.Duration(7*i) * time.Millisecond)
				if err := errors.Join(cmd.Process.Kill(), cmd.Wait()); err == nil || cmd.ProcessState.Exited() {
					t.Fatalf("was not killed: %v", err)
				}
				for _, line := range mountLines(t, base) {
					if !strings.Contains(line, " "+base+"/merged ") || !strings.Contains(line, " - overlay ") {
						t.Errorf("left behind: %s", line)
					}
				}
				if err := overlay.Unmount(base + "/merged"); err != nil {
					t.Error(err)
				}
				wantMounted(t, base+"/merged", false)
			}
		})
	}
}

func TestNoDescriptorsLeft(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := mapped(t, t.TempDir())
		m.IDMap = maps()[0]
		count := func() int {
			names, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(names)
		}
		probe := func() error { _, err := overlay.Probe(t.TempDir()); return err }
		good := func() error { return errors.Join(m.DoBy(w), overlay.Unmount(m.Target)) }
		if err := errors.Join(good(), probe()); err != nil {
			t.Fatal(err)
		}
		before := count()
		bad := *m
		bad.Extra = []string{"frob"}
		for range 5 {
			if err := errors.Join(good(), probe()); err != nil {
				t.Fatal(err)
			}
			if err := bad.DoBy(w); err == nil {
				t.Fatal("no error")
			}
		}
		if after := count(); after != before {
			t.Errorf("%d descriptors, were %d", after, before)
		}
	})
}
