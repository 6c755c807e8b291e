package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An ordinary user pins with storagectl into a store of his own, beside his graphroot, without any setting; the image outlives a reset, and
// runs. Root's pinned store is not his to change.
func TestRootlessPins(t *testing.T) {
	t.Parallel()
	s, set := rootless(t, "ext4", "ostree")
	program, err := storagectl()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(s.Home, "storagectl") // the cache is not everybody's to read
	if err := copyProgram(program, own); err != nil {
		t.Fatal(err)
	}
	ctl := func(args ...string) string { return s.Must(s.Call(append([]string{own}, args...)...)) }
	image := set.Need(t, "busybox")
	load(t, s, image)
	pinned := filepath.Join(filepath.Dir(s.Root), "pinned")
	if out := ctl("pin", image.ID, "--name", "os"); !strings.Contains(out, "by link") || !strings.Contains(out, pinned) {
		t.Errorf("pin says %q", out)
	}
	var st unix.Stat_t
	if err := unix.Stat(pinned, &st); err != nil || int(st.Uid) == 0 || st.Mode&0o777 != 0o700 {
		t.Errorf("the pinned store belongs to %d and has mode %o, %v", st.Uid, st.Mode, err)
	}
	ctl("pin", "verify")
	if out := ctl("pin", "doctor"); !strings.Contains(out, "nothing to advise") {
		t.Errorf("doctor says %q", out)
	}
	if out := ctl("images"); !strings.Contains(out, " yes") {
		t.Errorf("images says %q", out)
	}
	s.Podman("run", "--rm", "--network=none", image.ID, "/bin/busybox", "true")
	s.Podman("rmi", "--all", "--force")
	s.Podman("system", "reset", "--force")
	if out := s.Podman("images", "--no-trunc", "--format", "{{.ID}} {{.ReadOnly}}"); out != "sha256:"+image.ID+" true" {
		t.Errorf("images: %q", out)
	}
	s.Podman("run", "--rm", "--network=none", image.ID, "/bin/busybox", "true")
	ctl("pin", "verify")
	ctl("unpin", "os")
	if out := s.Podman("images", "--quiet"); out != "" {
		t.Errorf("after unpin: %q", out)
	}
	s.Fsck(pinned)

	// A pinned store of root's.
	roots := filepath.Join(s.Dir, "roots")
	for _, mode := range []os.FileMode{0o755, 0o700} {
		if err := os.MkdirAll(filepath.Join(roots, "ostree-images"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(roots, mode); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"pin", image.ID}, {"unpin", "os"}} {
			r := s.Call(append([]string{own, "--storage-opt", "pinned_store=" + roots}, args...)...).Exec(t)
			if r.Code != 4 && args[0] == "unpin" || r.Code == 0 || !strings.Contains(r.Stderr, "next: ") {
				t.Errorf("with mode %o: %v", mode, r)
			}
		}
	}
}

func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
