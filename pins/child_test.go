package pins_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/types"
)

func statOf(fi os.FileInfo) *syscall.Stat_t { return fi.Sys().(*syscall.Stat_t) }

// helper runs TestHelper in a process of its own: one that has had a store to write cannot have it to read only.
func helper(t *testing.T, args ...string) {
	t.Helper()
	file := t.TempDir() + "/tar"
	if err := os.WriteFile(file, []byte(args[len(args)-1]), 0o600); err != nil {
		t.Fatal(err)
	}
	args[len(args)-1] = file
	c := exec.Command(os.Args[0], "-test.run=^TestHelper$", "-test.count=1")
	c.Env = append(os.Environ(), "PINS_HELPER="+strings.Join(args, "\n"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, out)
	}
}

// TestHelper is a program that uses a store with its pinned one.
func TestHelper(t *testing.T) {
	args := strings.Split(os.Getenv("PINS_HELPER"), "\n")
	if len(args) < 6 {
		t.Skip("it is run by other tests, in a process of its own")
	}
	s, err := storage.GetStore(types.StoreOptions{GraphRoot: args[1], RunRoot: args[2], GraphDriverName: "ostree", GraphDriverOptions: []string{"pinned_store=" + args[3]}})
	if err != nil {
		t.Fatal(err)
	}
	tar, err := os.ReadFile(args[5])
	if err != nil {
		t.Fatal(err)
	}
	switch args[0] {
	case "put-child":
		if _, _, err := s.PutLayer("child", args[4], nil, "", false, nil, bytes.NewReader(tar)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateImage("", []string{"localhost/os:2"}, "child", "", nil); err != nil {
			t.Fatal(err)
		}
	case "remove":
		if _, err := s.DeleteImage(args[4], true); err != nil {
			t.Fatal(err)
		}
	case "check-child":
		kind := archive.Uncompressed
		r, err := s.Diff("", "child", &storage.DiffOptions{Compression: &kind})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, tar) {
			t.Errorf("the child's diff has %d bytes, %v", len(got), err)
		}
		report, err := s.Check(storage.CheckMost())
		if err != nil || len(report.Layers)+len(report.ROLayers)+len(report.Images)+len(report.ROImages) != 0 {
			t.Errorf("check finds %+v, %v", report, err)
		}
		root, err := s.MountImage("localhost/os:2", []string{"ro"}, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"/usr/base/1", "/usr/v2/1"} {
			if _, err := os.Stat(root + name); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.UnmountImage("localhost/os:2", true); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Shutdown(false); err != nil {
		t.Error(err)
	}
}
