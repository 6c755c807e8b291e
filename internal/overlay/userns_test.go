package overlay_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"golang.org/x/sys/unix"
)

// inUserNS is set in a test binary that runs as root of a user namespace.
var inUserNS = os.Getenv("OVERLAY_TEST_USERNS") != ""

// TestInUserNamespace runs the tests of this package again as root of a user namespace, as rootless podman does.
func TestInUserNamespace(t *testing.T) {
	needRoot(t)
	if inUserNS {
		t.Skip("is the inner run")
	}
	dir, err := os.MkdirTemp("", "overlay-userns-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 100000, 100000); err != nil {
		t.Fatal(err)
	}
	const tests = "^Test(ReadWrite|ReadOnly|NoLowers|B18OddPaths|Volatile|Unmount|NotMounted|Probe|Escape|UserNamespaceErrors)$"
	cmd := exec.Command("/proc/self/exe", "-test.run", tests, "-test.v")
	cmd.Env = append(os.Environ(), "OVERLAY_TEST_USERNS=1", "TMPDIR="+dir, "GOCOVERDIR="+dir)
	cmd.Dir = "/"
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestReadWrite/fd ", "--- PASS: TestVolatile/fd ", "--- PASS: TestB18OddPaths/long/mount_private", "--- PASS: TestUserNamespaceErrors"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// In a user namespace the error for mapped lowers is EPERM, and overlay's attributes are refused in trusted.*.
func TestUserNamespaceErrors(t *testing.T) {
	if !inUserNS {
		t.Skip("runs in TestInUserNamespace")
	}
	m := layers(t, t.TempDir(), 1)
	m.IDMap = &overlay.IDMap{UIDs: []overlay.Range{{Size: 1}}, GIDs: []overlay.Range{{Size: 1}}}
	if err := m.Do(); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "map the owners of") {
		t.Error(err)
	}
}

func TestProbe(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	got, err := overlay.Probe(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", got)
	p, err := overlay.NewProber(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("trusted: %v; mapped: %v; data-only: %v", p.TrustedXattr(), p.IDMap(), p.DataOnly())
	if got.TrustedXattr == inUserNS || got.IDMap == inUserNS || !got.Upper {
		t.Errorf("features %+v with user namespace %v", got, inUserNS)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if _, err := overlay.Probe(dir + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// A lower's escaped attributes are seen with their own names and do not act on the mount.
func TestA08Escape(t *testing.T) {
	needRoot(t)
	if p, err := overlay.NewProber(t.TempDir()); err != nil || p.EscapeXattr() != nil {
		t.Skipf("no escape here: %v, %v", err, p.EscapeXattr())
	}
	prefix := "trusted."
	if inUserNS {
		prefix = "user."
	}
	m := layers(t, t.TempDir(), 2)
	dirs(t, m.Lowers[0], "dir")
	dirs(t, m.Lowers[1], "dir", "other")
	write(t, m.Lowers[1]+"/dir/below", "")
	write(t, m.Lowers[0]+"/file", "text")
	attributes := map[string]string{
		m.Lowers[0] + "/dir":  "opaque",
		m.Lowers[0] + "/file": "metacopy",
		m.Lowers[1] + "/dir":  "redirect",
		m.Lowers[0] + "/top":  "overlay.whiteout",
	}
	for path, name := range attributes {
		if err := unix.Lsetxattr(path, prefix+"overlay.overlay."+name, []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, m, overlay.Way{})
	if _, err := os.Stat(m.Target + "/dir/below"); err != nil {
		t.Errorf("escaped opaque acts: %v", err)
	}
	wantFile(t, m.Target+"/file", "text")
	wantFile(t, m.Target+"/top", "0")
	for path, name := range map[string]string{"/dir": "opaque", "/file": "metacopy", "/top": "overlay.whiteout"} {
		value := make([]byte, 16)
		if n, err := unix.Lgetxattr(m.Target+path, prefix+"overlay."+name, value); err != nil || string(value[:n]) != "y" {
			t.Errorf("%s of %s: %q, %v", name, path, value[:n], err)
		}
	}
	// What a process of the mount sets is escaped in the upper directory.
	if err := unix.Lsetxattr(m.Target+"/top", prefix+"overlay.new", []byte("n"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Lgetxattr(m.Upper+"/top", prefix+"overlay.overlay.new", make([]byte, 4)); err != nil {
		t.Errorf("attribute in the upper directory: %v", err)
	}
}

// A raw overlay attribute does act: what layers writes for opaque directories.
func TestOpaque(t *testing.T) {
	needRoot(t)
	m := layers(t, t.TempDir(), 2)
	dirs(t, m.Lowers[0], "dir")
	dirs(t, m.Lowers[1], "dir")
	write(t, m.Lowers[1]+"/dir/below", "")
	if err := unix.Lsetxattr(m.Lowers[0]+"/dir", "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	mount(t, m, overlay.Way{})
	if _, err := os.Stat(m.Target + "/dir/below"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opaque does not act: %v", err)
	}
}

// The default options keep directories of lowers from being renamed by redirect.
func TestNoRedirect(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := layers(t, t.TempDir(), 1)
		dirs(t, m.Lowers[0], "dir")
		mount(t, m, w)
		if err := os.Rename(m.Target+"/dir", m.Target+"/new"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("rename: %v, want EXDEV", err)
		}
	})
}

func TestLabel(t *testing.T) {
	needRoot(t)
	m := layers(t, t.TempDir(), 1)
	m.Label = "system_u:object_r:container_file_t:s0:c1,c2"
	err := m.Do()
	if _, statErr := os.Stat("/sys/fs/selinux/enforce"); statErr != nil {
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), m.Label) {
			t.Errorf("label without SELinux: %v", err)
		}
		overlay.Unmount(m.Target)
		t.Skipf("SELinux is off, so context= is refused: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer overlay.Unmount(m.Target)
	if line := mountLine(t, m.Target); !strings.Contains(line, `context="`+m.Label+`"`) {
		t.Errorf("mountinfo: %s", line)
	}
}
