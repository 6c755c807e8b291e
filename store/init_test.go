package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestCutInit cuts the making of a repository at each operation: the next Init finishes it.
func TestCutInit(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	for n := 1; ; n++ {
		home, err := os.MkdirTemp(top, "init-")
		must(t, err)
		d := &faulty{disk: kernel{}, home: home, cut: n, err: errCut}
		err = initialize(d, home+"/repo", Options{Label: "some_t"})
		if err != nil && !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if r, err := Open(home + "/repo"); err == nil {
			if _, err := os.Stat(home + "/repo/objects"); err != nil || d.n >= n && d.log[n-1] != "mkdir repo/objects" && r.Label() != "some_t" {
				t.Errorf("cut at %d: opened half a repository", n)
			}
			must(t, r.Close())
		}
		r, err := Init(home+"/repo", Options{Label: "some_t"})
		must(t, err)
		must(t, r.Fsck(context.Background(), FsckOptions{}, func(f Finding) { t.Error(f) }))
		if fi, err := os.Stat(home + "/repo"); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
		_, err = r.Recover(context.Background())
		must(t, err)
		for _, pattern := range []string{"/.probe*", "/config.*", "/extensions/ostree-storage/config.*"} {
			if left, err := filepath.Glob(home + "/repo" + pattern); err != nil || len(left) > 0 {
				t.Errorf("cut at %d: left after recovery: %q, %v", n, left, err)
			}
		}
		must(t, r.Close())
		if d.n < n {
			golden(t, "init", d.log)
			return
		}
	}
}

// TestInitTogether makes one repository many times at once.
func TestInitTogether(t *testing.T) {
	home := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := Init(home+"/repo", Options{Label: "l"})
			if err != nil {
				t.Error(err)
				return
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(home + "/repo")
	must(t, err)
	for _, e := range left {
		if strings.HasPrefix(e.Name(), ".probe") || strings.HasPrefix(e.Name(), "config.") {
			t.Errorf("left: %s", e.Name())
		}
	}
}

// TestInitInherits drops a default access control list, which objects would inherit and ostree would hash.
func TestInitInherits(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 7, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0, 255, 255, 255, 255}
	must(t, unix.Setxattr(home, aclDefault, acl, 0))
	r, err := Init(home+"/repo", Options{})
	must(t, err)
	w := &world{t: t, home: home, repo: r}
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	w.check("after a layer")
	must(t, r.Close())
}

// TestOpenRefuses opens what this package cannot keep.
func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct{ path, text string }{
		"archive":        {"config", "[core]\nrepo_version=1\nmode=archive-z2\n"},
		"bare-user":      {"config", "[core]\nrepo_version=1\nmode=bare-user\n"},
		"newer ostree":   {"config", "[core]\nrepo_version=2\nmode=bare\n"},
		"no config":      {"config", ""},
		"from future":    {labelFile, "[ostree-storage]\nformat=2\n"},
		"torn extension": {labelFile, ""},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			r, err := Init(home+"/repo", Options{})
			must(t, err)
			must(t, r.Close())
			must(t, os.WriteFile(home+"/repo/"+c.path, []byte(c.text), 0o600))
			if _, err := Open(home + "/repo"); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%v", err)
			}
			if _, err := Init(home+"/repo", Options{}); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := Init(t.TempDir()+"/repo", Options{Label: "a\nb"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a label of two lines: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

// TestReadOnly opens a repository on a read-only mount.
func TestReadOnly(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	w := newWorld(t, home)
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	must(t, unix.Mount("", home, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	defer unix.Mount("", home, "", unix.MS_REMOUNT, "")
	r, err := Open(w.home + "/repo")
	must(t, err)
	defer r.Close()
	if !r.ReadOnly() {
		t.Error("open for writing")
	}
	must(t, r.Fsck(context.Background(), FsckOptions{}, func(f Finding) { t.Error(f) }))
	c, err := r.Ref("layer/base")
	must(t, err)
	_, stageErr := r.NewStage(StageOptions{})
	_, pruneErr := r.Prune(context.Background(), false)
	for name, err := range map[string]error{"stage": stageErr, "prune": pruneErr, "ref": r.SetRef("x", c), "delete": r.DeleteRef("layer/base")} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := OpenInodes(w.home+"/base/inodes", w.home+"/base/tree"); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

// TestNoHardlinks refuses a filesystem that has none.
func TestNoHardlinks(t *testing.T) {
	home := t.TempDir()
	d := &noLinks{kernel{}}
	if err := initialize(d, home+"/repo", Options{}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := os.Stat(home + "/repo/objects"); err == nil {
		t.Error("made a repository all the same")
	}
}

type noLinks struct{ disk }

func (*noLinks) link(int, string, int, string) error { return unix.EPERM }
