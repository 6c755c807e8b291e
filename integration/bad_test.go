package integration_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// state is all that a failed operation must leave as it was: objects, refs and layers.
func state(t *testing.T, s *programs.Store) string {
	t.Helper()
	var lines []string
	for _, pattern := range []string{"repo/objects/*/*", "repo/refs/heads/*/*", "layers/*", "repo/extensions/ostree-storage/staging/*", "repo/extensions/ostree-storage/trash/*"} {
		names, err := filepath.Glob(filepath.Join(s.Home(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			lines = append(lines, strings.TrimPrefix(n, s.Home()))
		}
	}
	return strings.Join(lines, "\n")
}

// A bad layer is refused with an error that names the entry, and the store is as before.
func TestBadLayer(t *testing.T) {
	t.Parallel()
	skopeo, podman, set := programs.Find(t, "skopeo"), programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	pull(t, s, podman, set.Need(t, "tiny"))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	whole := makeTar(t, entry{"etc/", ""}, entry{"etc/first", "one"}, entry{"usr/second", string(big)}, entry{"usr/third", "three"})
	for name, c := range map[string]struct {
		tar   []byte
		words []string
	}{
		"truncated in a file":   {whole[:len(whole)/2], []string{"usr/second", "unexpected EOF"}},
		"truncated in a header": {whole[:1024+512+100], []string{"unexpected EOF"}},
		"garbage":               {bytes.Repeat([]byte("no tar at all, "), 5000), []string{"invalid tar header"}},
		"garbage after a file":  {append(bytes.Clone(whole[:2560]), bytes.Repeat([]byte("x"), 4096)...), []string{"usr/second"}},
		"no parent directory":   {makeTar(t, entry{"file", "x"}, entry{"file/below", "y"}), []string{"file/below"}},
		"link to nothing":       {makeTar(t, entry{"a", "x"}, entry{"b", "=>nowhere"}), []string{"b", "nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "layer.tar")
			if err := os.WriteFile(file, c.tar, 0o644); err != nil {
				t.Fatal(err)
			}
			layout := filepath.Join(t.TempDir(), "bad")
			image, err := fixtures.WriteLayout(layout, fixtures.Spec{Name: "bad", Tars: []string{file}, Broken: true, Created: time.Unix(1e9, 0)})
			if err != nil {
				t.Fatal(err)
			}
			before := state(t, s)
			words := append([]string{image.Layers[0].DiffID}, c.words...)
			for _, p := range []programs.Program{skopeo, podman} {
				var r programs.Result
				if p.Name == "skopeo" {
					r = s.Fails(p, words, "copy", "--quiet", "oci:"+layout, s.Reference("localhost/bad:1"))
				} else {
					c := s.Call(p, "pull", "--quiet", "oci:bad")
					c.Dir = filepath.Dir(layout) // which may have capitals in its name
					r = s.FailsCall(c, words)
				}
				t.Logf("%s says: %s", p.Name, strings.TrimSpace(r.Stderr))
				if after := state(t, s); after != before {
					t.Errorf("%s: the store is not as before:\n%s\nwas\n%s", p.Name, after, before)
				}
			}
		})
	}
	if out := s.Container(podman, "localhost/tiny:latest", "read line </etc/motd; echo $line"); out != "hello from a fixture" {
		t.Errorf("the good image says %q", out)
	}
}

// An entry is a name and content: a directory where the name ends in a slash, a hardlink where the content begins
// with "=>".
type entry struct{ name, content string }

func makeTar(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), ModTime: time.Unix(1e9, 0), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(e.content, "=>"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, target, 0
		}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			fmt.Fprint(w, e.content)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// No entry of a layer reaches outside the layer.
func TestA12Escapes(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	tiny := set.Need(t, "tiny")
	outside := filepath.Join(s.Dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 12)
	file := filepath.Join(s.Dir, "evil.tar")
	evil := makeTar(t, entry{up + outside[1:] + "/dotdot", "evil"}, entry{outside + "/absolute", "evil"}, entry{"ok", "fine"})
	if err := os.WriteFile(file, evil, 0o644); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(s.Dir, "evil")
	if _, err := fixtures.WriteLayout(layout, fixtures.Spec{Name: "evil", Tars: []string{tiny.Layers[0].Tar, file}, Created: time.Unix(1e9, 0)}); err != nil {
		t.Fatal(err)
	}
	r := s.Try(podman, "pull", "--quiet", "oci:"+layout)
	t.Logf("pull: exit status %d %s", r.Code, r.Stderr)
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("the layer wrote %v outside, %v", left, err)
	}
}

// Options that are unknown or malformed are refused, by name.
func TestBadOptions(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"podman", "buildah", "containers-storage", "containers-storage-legacy"} {
		t.Run(name, func(t *testing.T) {
			p := programs.Find(t, name)
			s := newStore(t, "ostree")
			verb := "images"
			for option, words := range map[string][]string{
				"ostree.nonsense=1":     {"nonsense", "mtime", "pinned_store"},
				".nonsense=1":           {"nonsense"},
				"mtime=sometimes":       {"mtime", "sometimes", "exact", "shared"},
				"sync=maybe":            {"sync", "maybe"},
				"share_with=not/a/path": {"share_with"},
			} {
				s.Options = []string{option}
				s.Fails(p, words, verb)
			}
			s.Options = []string{"overlay.mountopt=nodev", ".mtime=shared", "links=shared", "ostree.sync=none"}
			s.Run(p, verb)
		})
	}
}

// Homes that the driver must not touch: a later format, another driver's, one on two mounts, no hardlinks.
func TestB20BadHomes(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	image := set.Need(t, "tiny")
	t.Run("format of the future", func(t *testing.T) {
		s := newStore(t, "ostree")
		pull(t, s, podman, image)
		path := filepath.Join(s.Home(), "version")
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, later := range []string{`{"format":999}`, `{"format":1,"incompatible":["time-travel"]}`} {
			before := state(t, s)
			if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
				t.Fatal(err)
			}
			r := s.Fails(podman, nil, "images")
			t.Logf("%s: %s", later, strings.TrimSpace(r.Stderr))
			if state(t, s) != before {
				t.Error("the store changed")
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		s.Container(podman, image.ID, "true")
	})
	t.Run("another driver's", func(t *testing.T) {
		s := newStore(t, "ostree")
		writeFile(t, filepath.Join(s.Home(), "dir", "abc", "etc", "passwd"), "x")
		s.Fails(podman, []string{"another driver", s.Home()}, "images")
		if names, err := os.ReadDir(s.Home()); err != nil || len(names) != 1 {
			t.Errorf("the directory has %v, %v", names, err)
		}
		if err := os.RemoveAll(s.Home()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("two mounts", func(t *testing.T) {
		s := newStore(t, "ostree")
		pull(t, s, podman, image)
		layers, before := filepath.Join(s.Home(), "layers"), state(t, s)
		if err := unix.Mount(layers, layers, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(layers, unix.MNT_DETACH)
		r := s.Fails(podman, []string{layers}, "pull", "--quiet", "oci:"+set.Need(t, "busybox").Layout)
		t.Logf("two mounts: %s", strings.TrimSpace(r.Stderr))
		if after := state(t, s); after != before {
			t.Errorf("the store changed:\n%s\nwas\n%s", after, before)
		}
	})
	t.Run("no hardlinks", func(t *testing.T) {
		dir := exfat(t)
		s := programs.NewStore(t, filepath.Join(dir, "store"), "ostree")
		r := s.Fails(podman, []string{"hardlink"}, "images")
		t.Logf("exFAT: %s", strings.TrimSpace(r.Stderr))
		if err := os.RemoveAll(s.Home()); err != nil {
			t.Fatal(err)
		}
	})
}

// exfat mounts a filesystem that has no hardlinks, through FUSE: few kernels of test machines have one.
func exfat(t *testing.T) string {
	t.Helper()
	dir := testfs.Mount(t, "ext4")
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "exfat")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20), os.Mkdir(mount, 0o755)); err != nil {
		t.Fatal(err)
	}
	const make = `mkfs.exfat "$1" >/dev/null && device=$(losetup --find --show "$1") && mount.exfat-fuse "$device" "$2" && losetup --detach "$device"`
	if r := (programs.Call{Path: "/bin/sh", Args: []string{"-c", make, "sh", image, mount}}).Exec(t); r.Code != 0 {
		t.Skipf("no exFAT on this machine: %v", r)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	return mount
}
