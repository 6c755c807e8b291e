package integration_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// A disk that a pull has filled, and one that is full to the last block besides, as podman finds it with a driver: whether each step
// of those that fullDisk makes worked.
type fullOutcome map[string]bool

// TestFullDisk fills a disk by a pull, and then by another file to its last block. Images can be removed at each step, where overlay fails
// on the full disk: containers/storage writes its records first, and has the room of a reserve that the driver gives up when it is opened.
// What is removed is free, and the next pull works.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	small, other, big := set.Need(t, "busybox"), set.Need(t, "tiny"), set.Need(t, "trixie")
	for n, kind := range testfs.Kinds {
		if n > 0 && os.Getenv("SOAK") == "" {
			t.Logf("%s only under SOAK: store's TestB11Full fills it in every run", kind)
			continue
		}
		t.Run(kind, func(t *testing.T) {
			outcomes := map[string]fullOutcome{}
			for _, driver := range []string{"overlay", "ostree"} {
				t.Run(driver, func(t *testing.T) { outcomes[driver] = fullDisk(t, kind, driver, podman, small, other, big) })
			}
			if len(outcomes["ostree"]) == 0 || len(outcomes["overlay"]) == 0 {
				return
			}
			for step, worked := range outcomes["overlay"] {
				t.Logf("%s: with overlay %v, with ostree %v", step, worked, outcomes["ostree"][step])
				if !outcomes["ostree"][step] {
					t.Errorf("%s does not work", step)
				}
			}
		})
	}
}

func fullDisk(t *testing.T, kind, driver string, podman programs.Program, small, other, big fixtures.Image) fullOutcome {
	top := testfs.MountOptions(t, kind, testfs.Options{Size: 1 << 30})
	dir := filepath.Join(top, "store")
	for _, sub := range []string{"tmp", "run"} { // as /run and /var/tmp are no part of a disk for images
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", filepath.Join(dir, sub), "tmpfs", 0, "size=600m,mode=755"); err != nil {
			t.Fatal(err)
		}
	}
	s := programs.NewStore(t, dir, driver)
	pull := func(i fixtures.Image) programs.Result {
		c := s.Call(podman, "pull", "--quiet", "oci:"+i.Name)
		c.Dir = filepath.Dir(i.Layout)
		return c.Exec(t)
	}
	for _, i := range []fixtures.Image{small, other} {
		if r := pull(i); r.Code != 0 {
			t.Fatal(r)
		}
	}
	out := fullOutcome{}
	leaveFree(t, top, "ballast", 30<<20)
	if r := pull(big); r.Code == 0 || !strings.Contains(r.Stderr, "no space left on device") {
		t.Fatalf("the pull of what has no room: %v", r)
	}
	try := func(step string, args ...string) {
		r := s.Try(podman, args...)
		out[step] = r.Code == 0
		if r.Code != 0 {
			t.Logf("%s: %v", step, r)
		}
	}
	try("list after the pull", "images", "--all")
	try("rmi after the pull", "rmi", other.Ref())
	// To the last block, more than once: what was freed a moment ago comes back with the next commit of the journal.
	for n := range 3 {
		leaveFree(t, top, fmt.Sprint("more", n), 0)
	}
	try("list on the full disk", "images", "--all")
	try("rmi on the full disk", "rmi", "--all")
	for _, name := range []string{"ballast", "more0", "more1", "more2"} {
		if err := os.Remove(filepath.Join(top, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	try("rmi afterwards", "rmi", "--all")
	if left := s.Run(podman, "images", "--quiet"); left != "" {
		t.Errorf("images are left: %s", left)
	}
	if r := pull(other); r.Code != 0 {
		t.Errorf("the pull with room: %v", r)
	}
	return out
}

// leaveFree makes a file that takes all but so many bytes. It need not be possible to make one.
func leaveFree(t *testing.T, top, name string, free int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(top, name))
	if errors.Is(err, unix.ENOSPC) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(top, &st); err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for size := int64(st.Bavail)*st.Bsize - free; size >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, size); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		} else if at += size; free > 0 {
			return
		}
	}
	for size := 4096; size >= 512; { // what is left for those who ask for less
		if _, err := f.WriteAt(make([]byte, size), at); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		} else {
			at += int64(size)
		}
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
