package pins_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/pins"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A sysroot is a fake host: what a booted OSTree system has.
type sysroot struct {
	t   *testing.T
	dir string
	sum string
}

// newSysroot makes /run/ostree-booted, the kernel command line, the boot links, the deployment with its origin, and its commit.
func newSysroot(t *testing.T, origin, manifest string) *sysroot {
	t.Helper()
	s := &sysroot{t: t, dir: t.TempDir()}
	c := object.Commit{Tree: object.Sum([]byte("tree")), Meta: object.Sum([]byte("meta"))}
	if manifest != "" {
		c.Metadata = []object.MetadataEntry{{Key: "ostree.manifest-digest", Value: object.StringVariant(manifest)}}
	}
	text, err := c.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.sum = object.Sum(text).String()
	boot := "sysroot/ostree/boot.1.1/os/" + strings.Repeat("b", 64)
	s.write("run/ostree-booted", "")
	s.write("proc/cmdline", "BOOT_IMAGE=/vmlinuz rw ostree=/ostree/boot.1/os/"+strings.Repeat("b", 64)+"/0 quiet\n")
	s.write("sysroot/ostree/repo/objects/"+s.sum[:2]+"/"+s.sum[2:]+".commit", string(text))
	s.write("sysroot/ostree/deploy/os/deploy/"+s.sum+".0/etc/os-release", "ID=x\n")
	s.write("sysroot/ostree/deploy/os/deploy/"+s.sum+".0.origin", origin)
	s.link("boot.1.1", "sysroot/ostree/boot.1")
	s.write(boot+"/.x", "")
	s.link("../../../deploy/os/deploy/"+s.sum+".0", boot+"/0")
	return s
}

func (s *sysroot) write(path, text string) {
	s.t.Helper()
	path = filepath.Join(s.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sysroot) link(target, path string) {
	s.t.Helper()
	if err := os.Symlink(target, filepath.Join(s.dir, path)); err != nil {
		s.t.Fatal(err)
	}
}

const manifest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestFindBooted(t *testing.T) {
	for origin, want := range map[string]string{
		"[origin]\ncontainer-image-reference=ostree-unverified-registry:quay.io/a/os:43\n":                                 "quay.io/a/os:43",
		"[origin]\ncontainer-image-reference=ostree-image-signed:docker://quay.io/a/os:43\n":                               "quay.io/a/os:43",
		"[origin]\ncontainer-image-reference=ostree-remote-registry:fedora:quay.io/a/os:43\n":                              "quay.io/a/os:43",
		"[origin]\ncontainer-image-reference=ostree-remote-image:fedora:docker://quay.io/a/os\n":                           "quay.io/a/os",
		"[origin]\ncontainer-image-reference=ostree-unverified-image:containers-storage:localhost/os\n":                    "localhost/os",
		"[libostree-transient]\npinned=true\n[origin]\ncontainer-image-reference = ostree-unverified-registry:q.io/os:1\n": "q.io/os:1",
	} {
		b, err := pins.FindBooted(context.Background(), newSysroot(t, origin, manifest).dir)
		if err != nil || b.Image != want || b.Digest != manifest || !strings.HasSuffix(b.Source, ".origin") {
			t.Errorf("%q: %+v, %v", origin, b, err)
		}
	}
	if b, err := pins.FindBooted(context.Background(), newSysroot(t, "[origin]\ncontainer-image-reference=ostree-unverified-registry:q.io/os:1\n", "").dir); err != nil || b.Digest != "" {
		t.Errorf("without a manifest digest: %+v, %v", b, err)
	}
}

// softBooted writes /run/ostree-booted as ostree does since 2023: a GVariant a{sv} with, among others, device and inode of a deployment.
func (s *sysroot) softBooted(dir string) {
	s.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.dir, dir), &st); err != nil {
		s.t.Fatal(err)
	}
	le := binary.LittleEndian
	entry := func(key, kind string, value []byte) []byte {
		b := append([]byte(key), 0)
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		b = append(append(append(b, value...), 0), kind...)
		return append(b, byte(len(key)+1)) // where the key ends
	}
	var text, ends []byte
	for _, e := range [][]byte{
		entry("composefs", "b", []byte{1}),
		entry("backing-root-device-inode", "(tt)", le.AppendUint64(le.AppendUint64(nil, st.Dev), st.Ino)),
		entry("sysroot-ro", "b", []byte{1}),
	} {
		for len(text)%8 != 0 {
			text = append(text, 0)
		}
		text = append(text, e...)
		ends = append(ends, byte(len(text)))
	}
	s.write("run/ostree-booted", string(append(text, ends...)))
}

// After a soft reboot the kernel's command line names the deployment before, and /run/ostree-booted the one that runs.
func TestFindBootedAfterSoftReboot(t *testing.T) {
	s := newSysroot(t, "[origin]\ncontainer-image-reference=ostree-unverified-registry:q.io/os:1\n", manifest)
	next := "sysroot/ostree/deploy/os/deploy/" + strings.Repeat("c", 64) + ".0"
	s.write(next+"/etc/os-release", "ID=x\n")
	s.write(next+".origin", "[origin]\ncontainer-image-reference=ostree-unverified-registry:q.io/os:2\n")
	s.softBooted(next)
	if b, err := pins.FindBooted(context.Background(), s.dir); err != nil || b.Image != "q.io/os:2" || b.Digest != "" {
		t.Errorf("after a soft reboot: %+v, %v", b, err)
	}
	s.softBooted("sysroot/ostree/deploy/os/deploy/" + s.sum + ".0")
	if b, err := pins.FindBooted(context.Background(), s.dir); err != nil || b.Image != "q.io/os:1" || b.Digest != manifest {
		t.Errorf("after a boot: %+v, %v", b, err)
	}
	s.softBooted("run") // of no deployment: what the kernel says holds
	if b, err := pins.FindBooted(context.Background(), s.dir); err != nil || b.Image != "q.io/os:1" {
		t.Errorf("with another directory's inode: %+v, %v", b, err)
	}
}

func TestFindBootedErrors(t *testing.T) {
	good := "[origin]\ncontainer-image-reference=ostree-unverified-registry:q.io/os:1\n"
	for name, c := range map[string]struct {
		origin string
		spoil  func(s *sysroot)
		words  string
	}{
		"not ostree":    {good, func(s *sysroot) { os.Remove(filepath.Join(s.dir, "run/ostree-booted")) }, "not booted from an OSTree deployment"},
		"no karg":       {good, func(s *sysroot) { s.write("proc/cmdline", "quiet") }, "no ostree="},
		"broken link":   {good, func(s *sysroot) { s.write("proc/cmdline", "ostree=/ostree/boot.0/os/x/0") }, "is not there"},
		"no deployment": {good, func(s *sysroot) { os.RemoveAll(filepath.Join(s.dir, "sysroot/ostree/deploy")) }, "no deployment"},
		"a ref":         {"[origin]\nrefspec=fedora:fedora/x86_64/coreos\n", func(*sysroot) {}, "fedora:fedora/x86_64/coreos"},
		"no image":      {"[origin]\n", func(*sysroot) {}, "names no container image"},
		"unknown kind":  {"[origin]\ncontainer-image-reference=what:q.io/os\n", func(*sysroot) {}, "no known kind"},
	} {
		s := newSysroot(t, c.origin, manifest)
		c.spoil(s)
		if b, err := pins.FindBooted(context.Background(), s.dir); !errors.Is(err, pins.ErrUnknown) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}

func TestParseBootcStatus(t *testing.T) {
	b, err := pins.ParseBootcStatus([]byte(`{"apiVersion":"org.containers.bootc/v1","kind":"BootcHost","spec":{"image":{"image":"quay.io/a/os:44","transport":"registry"}},
		"status":{"staged":null,"booted":{"image":{"image":{"image":"quay.io/a/os:43","transport":"registry","signature":null},"version":"43.1","imageDigest":"` + manifest + `"},
		"cachedUpdate":null,"incompatible":false,"pinned":false,"store":"ostreeContainer","ostree":{"checksum":"x","deploySerial":0}},"rollback":null,"type":"bootcHost"}}`))
	if err != nil || b.Image != "quay.io/a/os:43" || b.Digest != manifest {
		t.Errorf("bootc status is read as %+v, %v", b, err)
	}
	for _, text := range []string{`{"status":{"booted":null}}`, `{"status":{"booted":{"image":null}}}`, `{}`} {
		if b, err := pins.ParseBootcStatus([]byte(text)); !errors.Is(err, pins.ErrUnknown) {
			t.Errorf("%s: %+v, %v", text, b, err)
		}
	}
}

// The booted image is what its digest says, not what its name has become.
func TestFindBootedImage(t *testing.T) {
	w := newWorld(t)
	w.put(one, []string{"quay.io/a/os:43"}, layer(t, "base", 3))
	var sum string
	w.inMain(func(s storage.Store) {
		i, err := s.Image(one)
		if err != nil {
			t.Fatal(err)
		}
		sum = i.Digest.String()
	})
	w.inPins(func(s *pins.Store) {
		for _, b := range []pins.Booted{{Image: "quay.io/a/os:43", Digest: sum}, {Image: "quay.io/a/os:43"}} {
			if id, err := s.FindBootedImage(b); err != nil || id != one {
				t.Errorf("%+v is %s, %v", b, id, err)
			}
		}
		for words, b := range map[string]pins.Booted{
			"with another manifest":                   {Image: "quay.io/a/os:43", Digest: manifest},
			"podman pull quay.io/a/other@" + manifest: {Image: "quay.io/a/other:1", Digest: manifest},
			"podman pull quay.io/a/other:1":           {Image: "quay.io/a/other:1"},
		} {
			if _, err := s.FindBootedImage(b); !errors.Is(err, pins.ErrUnknown) || !strings.Contains(err.Error(), words) {
				t.Errorf("%+v: %v", b, err)
			}
		}
	})
}
