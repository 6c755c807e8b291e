package testfs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

var magic = map[string]int64{"ext4": 0xef53, "xfs": 0x58465342, "btrfs": 0x9123683e}

func TestEachIsAFreshFilesystemOfItsKind(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if kind := filepath.Base(dir); st.Type != magic[kind] {
			t.Errorf("statfs type %#x of %s", st.Type, kind)
		}
		// Left open on purpose: mounts below are the package's to undo.
		below := filepath.Join(dir, "below")
		if err := os.Mkdir(below, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", below, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "/below tmpfs") {
		t.Errorf("a mount was left behind:\n%s", mounts)
	}
}

func TestReflinks(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		a, err := os.Create(filepath.Join(dir, "a"))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if _, err := a.WriteString("content"); err != nil {
			t.Fatal(err)
		}
		b, err := os.Create(filepath.Join(dir, "b"))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		err = unix.IoctlFileClone(int(b.Fd()), int(a.Fd()))
		if want := filepath.Base(dir) != "ext4"; (err == nil) != want {
			t.Errorf("reflink: %v, want success %v", err, want)
		}
	})
}

func TestShutdownLosesWhatWasNotSynced(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, "synced"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Syncfs(int(d.Fd()))
		d.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "lost"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		err = testfs.Shutdown(dir)
		if filepath.Base(dir) == "btrfs" {
			if !errors.Is(err, testfs.ErrUnsupported) {
				t.Errorf("shutdown of btrfs: %v, want ErrUnsupported", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "late"), nil, 0o644); err == nil {
			t.Error("a write after the shutdown succeeded")
		}
		if err := testfs.Remount(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "synced")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "lost")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file that was not synced: %v, want that it does not exist", err)
		}
	})
}

func TestSize(t *testing.T) {
	dir := testfs.MountOptions(t, "ext4", testfs.Options{Size: 64 << 20})
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if n := st.Blocks * uint64(st.Bsize); n > 64<<20 {
		t.Errorf("%d bytes on a filesystem of 64 MiB", n)
	}
}

func TestOpenFilesAreReported(t *testing.T) {
	f, err := testfs.New("ext4", testfs.Options{})
	if errors.Is(err, testfs.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Create(filepath.Join(f.Dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "/held") {
		t.Errorf("close with an open file: %v, want an error that names it", err)
	}
	if _, err := os.Stat(f.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount point is still there: %v", err)
	}
}

// A container that another process starts at the wrong moment takes our mount into its namespace and keeps it. The next boot
// comes nevertheless, with what had reached the disk.
func TestRemountWhileAnotherNamespaceHoldsTheFilesystem(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		if filepath.Base(dir) == "btrfs" {
			t.Skip("btrfs cannot be shut down")
		}
		write := func(name string, sync bool) {
			t.Helper()
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteString(name)
			if sync {
				err = errors.Join(err, unix.Syncfs(int(f.Fd())))
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		for round := range 3 {
			holder := exec.Command("sleep", "1000")
			holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = holder.Process.Kill()
				_ = holder.Wait()
			}()
			synced, lost := fmt.Sprint("synced", round), fmt.Sprint("lost", round)
			write(synced, true)
			write(lost, false)
			if err := errors.Join(testfs.Shutdown(dir), testfs.Remount(dir)); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(filepath.Join(dir, synced)); string(text) != synced {
				t.Errorf("the synced file holds %q, %v", text, err)
			}
			if _, err := os.Stat(filepath.Join(dir, lost)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file that was not synced: %v", err)
			}
			write("later", true)
		}
	})
}
