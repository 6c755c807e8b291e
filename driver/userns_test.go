package driver_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

const usernsVariable = "OSTREE_TEST_USERNS"

// TestUserNamespace runs the driver as root of a user namespace, as rootless podman does.
func TestUserNamespace(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		const root = 100000
		must(t, os.Chown(dir, root, root))
		must(t, os.Chmod(dir, 0o755))
		// The test binary itself must be readable there.
		self := filepath.Join(dir, "driver.test")
		b, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(self, b, 0o755))
		cmd := exec.Command(self, "-test.run=^TestUserNamespaceInside$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), usernsVariable+"="+dir, "TMPDIR="+dir)
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: root, Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings:                ids,
			GidMappings:                ids,
			GidMappingsEnableSetgroups: true,
			Credential:                 &syscall.Credential{},
		}
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
	})
}

// TestUserNamespaceInside is TestUserNamespace's other half.
func TestUserNamespaceInside(t *testing.T) {
	dir := os.Getenv(usernsVariable)
	if dir == "" {
		t.Skip("this is a part of TestUserNamespace, which runs it in a user namespace")
	}
	d := open(t, dir)
	b, size := ownersTar(t)
	if n := apply(t, d, "img", "", b); n != size {
		t.Errorf("size %d, want %d", n, size)
	}
	var over bytes.Buffer
	w := tar.NewWriter(&over)
	must(t, w.WriteHeader(&tar.Header{Name: ".wh.root", Typeflag: tar.TypeReg}))
	must(t, w.WriteHeader(&tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755}))
	must(t, w.WriteHeader(&tar.Header{Name: "dir/f", Typeflag: tar.TypeReg, Mode: 0o644}))
	must(t, w.Close())
	apply(t, d, "over", "img", over.Bytes())
	must(t, d.CreateReadWrite("ctr", "over", nil))
	root, err := d.Get("ctr", driver.MountOptions{})
	must(t, err)
	if _, err := os.Lstat(filepath.Join(root, "root")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a whiteout does not hide: %v", err)
	}
	must(t, os.Remove(filepath.Join(root, "user")))
	must(t, os.RemoveAll(filepath.Join(root, "dir")))
	must(t, os.Mkdir(filepath.Join(root, "dir"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "new"), nil, 0o600))
	must(t, d.Put("ctr"))
	wantChanges(t, d, "ctr", "over", "D /dir", "A /new", "D /user") // an opaque directory counts as removed, with the overlay driver too
	t.Logf("status %q", d.Status())
	if d.SupportsShifting(mapped(1)) {
		t.Error("mounts are said to map owners")
	}
	must(t, d.CreateFromTemplate("mapped", "over", "", nil, false))
	to := driver.Mappings{
		UIDs: []driver.IDMap{{ContainerID: 0, HostID: 1000, Size: 60000}},
		GIDs: []driver.IDMap{{ContainerID: 0, HostID: 1000, Size: 60000}},
	}
	must(t, d.UpdateLayerIDMap("mapped", driver.Mappings{}, to, ""))
	root, err = d.Get("mapped", driver.MountOptions{Options: []string{"ro"}})
	must(t, err)
	if fi, err := os.Lstat(filepath.Join(root, "user")); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 2000 {
		t.Errorf("owner after UpdateLayerIDMap: %v %v", fi, err)
	}
	must(t, d.Put("mapped"))
	checkStore(t, dir)
	for _, id := range []string{"ctr", "mapped", "over", "img"} {
		must(t, d.Remove(id))
	}
	checkStore(t, dir)
}
