package integration_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// A hostile layout is an OCI directory made blob by blob.
type hostile struct {
	t   *testing.T
	dir string
}

type anyMap = map[string]any

func newHostile(t *testing.T) *hostile {
	h := &hostile{t, filepath.Join(t.TempDir(), "evil")}
	writeFile(t, filepath.Join(h.dir, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	return h
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// blob writes a blob and returns its descriptor.
func (h *hostile) blob(mediaType string, b []byte) anyMap {
	h.t.Helper()
	writeFile(h.t, filepath.Join(h.dir, "blobs", strings.ReplaceAll(digestOf(b), ":", "/")), string(b))
	return anyMap{"mediaType": mediaType, "digest": digestOf(b), "size": len(b)}
}

func (h *hostile) json(mediaType string, v any) anyMap {
	h.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.blob(mediaType, b)
}

const ociType = "application/vnd.oci.image."

// image makes an image of one layer and leaves the manifest to change before it is written.
func (h *hostile) image(layer anyMap, diffID string, change func(manifest anyMap)) anyMap {
	config := h.json(ociType+"config.v1+json", anyMap{
		"architecture": "amd64", "os": "linux", "config": anyMap{"Labels": anyMap{"ostree-storage.format": "1", "layer": "layer/x"}},
		"rootfs": anyMap{"type": "layers", "diff_ids": []string{diffID}},
	})
	manifest := anyMap{"schemaVersion": 2, "mediaType": ociType + "manifest.v1+json", "config": config, "layers": []any{layer}}
	if change != nil {
		change(manifest)
	}
	return h.json(ociType+"manifest.v1+json", manifest)
}

func (h *hostile) index(manifests ...any) {
	b, err := json.Marshal(anyMap{"schemaVersion": 2, "manifests": manifests})
	if err != nil {
		h.t.Fatal(err)
	}
	writeFile(h.t, filepath.Join(h.dir, "index.json"), string(b))
}

// pull pulls the layout by a relative name: podman names the image after it, and refuses capitals.
func (h *hostile) pull(s *programs.Store, podman programs.Program) programs.Result {
	c := s.Call(podman, "pull", "--quiet", "oci:"+filepath.Base(h.dir))
	c.Dir = filepath.Dir(h.dir)
	return c.Exec(h.t)
}

func gzipped(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, part := range parts {
		w := gzip.NewWriter(&b)
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// pullHostile pulls a layout into both stores: what overlay's takes ours takes, and what one refuses the other refuses.
func pullHostile(t *testing.T, h *hostile, ours, theirs *programs.Store, podman programs.Program) bool {
	t.Helper()
	before := state(t, ours)
	r, want := h.pull(ours, podman), h.pull(theirs, podman)
	if (r.Code == 0) != (want.Code == 0) {
		t.Errorf("with overlay:\n%v\nwith ostree:\n%v", want, r)
	}
	if r.Code != 0 && state(t, ours) != before {
		t.Errorf("the store is not as before: %v", r)
	}
	t.Logf("exit status %d %s", r.Code, strings.TrimSpace(r.Stderr))
	return r.Code == 0
}

// TestA16HostileImages pulls images that lie, into our store and into one of overlay: A11, A15, A16, A18 and A20, as the subtests say.
func TestA16HostileImages(t *testing.T) {
	t.Parallel()
	podman := programs.Find(t, "podman")
	ours, theirs := twoStores(t)
	plain := makeTar(t, entry{"etc/", ""}, entry{"etc/file", "content"})
	layerType := ociType + "layer.v1.tar"
	// What is neither taken nor refused for sure is for the release of podman to say: only that overlay's store agrees.
	const taken, refused, either = "taken", "refused", "either"
	check := func(name, want string, build func(h *hostile)) {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			build(h)
			if got := pullHostile(t, h, ours, theirs, podman); got != (want == taken) && want != either {
				t.Errorf("taken is %v", got)
			}
		})
	}
	for _, digest := range []string{"sha256:../../../../etc/passwd", "sha256:abc", "sha256:" + strings.Repeat("G", 64), "../x", "md5:" + strings.Repeat("0", 32)} {
		check("A15 digest "+strings.ReplaceAll(digest, "/", "_"), refused, func(h *hostile) {
			layer := h.blob(layerType, plain)
			layer["digest"] = digest
			h.index(h.image(layer, digestOf(plain), nil))
		})
		check("A15 diff id "+strings.ReplaceAll(digest, "/", "_"), either, func(h *hostile) { h.index(h.image(h.blob(layerType, plain), digest, nil)) })
	}
	check("A16 index as manifest", refused, func(h *hostile) {
		m := h.image(h.blob(layerType, plain), digestOf(plain), nil)
		index := h.json(ociType+"manifest.v1+json", anyMap{"schemaVersion": 2, "mediaType": ociType + "index.v1+json", "manifests": []any{m}})
		h.index(index)
	})
	check("A16 both at once", refused, func(h *hostile) {
		h.index(h.image(h.blob(layerType, plain), digestOf(plain), func(m anyMap) { m["manifests"] = []any{m["config"]} }))
	})
	check("A18 another DiffID", either, func(h *hostile) {
		h.index(h.image(h.blob(layerType, plain), digestOf([]byte("another")), nil))
	})
	check("A11 trailing data", refused, func(h *hostile) {
		h.index(h.image(h.blob(layerType+"+gzip", append(gzipped(t, plain), "more"...)), digestOf(plain), nil))
	})
	check("A11 two members", taken, func(h *hostile) {
		h.index(h.image(h.blob(layerType+"+gzip", gzipped(t, plain[:700], plain[700:])), digestOf(plain), nil))
	})
	check("A11 zstd window of 2 GiB", refused, func(h *hostile) {
		frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00}
		h.index(h.image(h.blob(layerType+"+zstd", frame), digestOf(nil), nil))
	})
	check("A20 labels and annotations", taken, func(h *hostile) {
		layer := h.blob(layerType, plain)
		layer["annotations"] = anyMap{"ostree-storage.commit": strings.Repeat("0", 64), "org.opencontainers.image.ref.name": "../../x", "io.github.containers.zstd-chunked.manifest-checksum": "sha256:" + strings.Repeat("0", 64)}
		h.index(h.image(layer, digestOf(plain), func(m anyMap) { m["annotations"] = anyMap{"ostree.commit": "x"} }))
	})
}

// TestA11Bomb unpacks a layer that is a thousand times what it was: a file of zeros costs time, but neither memory nor disk.
func TestA11Bomb(t *testing.T) {
	t.Parallel()
	podman := programs.Find(t, "podman")
	s := newStore(t, "ostree")
	const size = 512 << 20 // twice what podman may take
	var b bytes.Buffer
	sum := sha256.New()
	z := gzip.NewWriter(&b)
	if err := writeZeros(io.MultiWriter(z, sum), size); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	h := newHostile(t)
	h.index(h.image(h.blob(ociType+"layer.v1.tar+gzip", b.Bytes()), fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil))
	before := freeAfterSync(t, s.Root)
	call := s.Call(podman, "pull", "--quiet", "oci:"+filepath.Base(h.dir))
	limited := programs.Call{Path: "/bin/sh", Args: append([]string{"-c", `exec /usr/bin/time -f "peak %M" "$@"`, "sh", call.Path}, call.Args...), Env: call.Env, Dir: filepath.Dir(h.dir)}
	r := limited.Exec(t)
	if r.Code == 127 {
		t.Skipf("no time(1): %v", r)
	}
	if r.Code != 0 {
		t.Fatal(r)
	}
	var peak int64
	if i := strings.LastIndex(r.Stderr, "peak "); i < 0 {
		t.Fatal(r)
	} else if _, err := fmt.Sscan(r.Stderr[i+5:], &peak); err != nil {
		t.Fatal(err)
	}
	t.Logf("a layer of %d bytes, %d compressed: peak %d KiB", size, b.Len(), peak)
	if peak > 256<<10 {
		t.Errorf("podman took %d KiB", peak)
	}
	if took := before - freeAfterSync(t, s.Root); took > size/10 {
		t.Errorf("the disk lost %d bytes for %d bytes of nothing", took, size)
	}
}

// writeZeros writes a tar of one file of zeros.
func writeZeros(w io.Writer, size int64) error {
	header := make([]byte, 512)
	copy(header, "zeros")
	copy(header[100:], "0000644\x000000000\x000000000\x00")
	copy(header[124:], fmt.Sprintf("%011o\x0000000000000\x00        0", size))
	copy(header[257:], "ustar\x0000")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	if _, err := w.Write(header); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for n := int64(0); n < size; n += int64(len(zeros)) {
		if _, err := w.Write(zeros); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, 1024))
	return err
}

// TestA17Abort has a layer that ends in the middle of its compression; the next pull must not wait for it.
func TestA17Abort(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	plain := makeTar(t, entry{"etc/", ""}, entry{"etc/file", strings.Repeat("content", 100_000)})
	xz := programs.Call{Path: "xz", Args: []string{"-c"}, Input: plain}.Exec(t)
	if xz.Code != 0 {
		t.Skipf("no xz: %v", xz)
	}
	for name, blob := range map[string][]byte{"xz": []byte(xz.Stdout), "gzip": gzipped(t, plain)} {
		h := newHostile(t)
		h.index(h.image(h.blob(ociType+"layer.v1.tar+gzip", blob[:len(blob)/2]), digestOf(plain), nil))
		begin := time.Now()
		if r := h.pull(s, podman); r.Code == 0 {
			t.Errorf("%s: half a layer is taken", name)
		}
		pull(t, s, podman, set.Need(t, "tiny"))
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("%s: %v", name, took)
		}
	}
}

// TestB03Containers lets root in a privileged container, and root on the host through what podman mounts (B04), try all that could
// change an object.
func TestB03Containers(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	image := set.Need(t, "busybox")
	pull(t, s, podman, image)
	objects := func() string {
		return programs.Must(t, "sh", "-c", `cd "$1" && find objects extensions/ostree-storage/lanes -type f -exec sha256sum {} + -exec stat -c "%n %Y %a %u:%g %s" {} + | sort | sha256sum`, "sh", s.Repo())
	}
	before := objects()
	attack := `for f in /bin/busybox /etc/passwd /etc/group; do
		echo evil >>$f; chmod 4777 $f; chown 7:7 $f; touch -d @1 $f; : >$f
		exec 3<$f; echo evil >/proc/self/fd/3; echo evil | dd of=/proc/self/fd/3 conv=notrunc
	done; mkdir -p /m; mount --bind / /m; mount -o remount,rw,bind /m; echo evil >/m/etc/passwd
	for d in /sys/fs/overlay /proc/1/root/etc; do echo evil >$d/passwd; done; true`
	for _, options := range [][]string{{}, {"--privileged"}, {"--read-only"}, {"--userns=auto:size=65536"}} {
		r := s.Try(podman, append(append([]string{"run", "--rm", "--network=none"}, options...), image.ID, "sh", "-c", attack)...)
		t.Logf("%q: exit status %d", options, r.Code)
		if now := objects(); now != before {
			t.Fatalf("%q: objects changed", options)
		}
	}
	t.Run("B04 podman mount", func(t *testing.T) {
		hostAttack(t, s.Run(podman, "image", "mount", image.ID))
		s.Run(podman, "image", "unmount", image.ID)
		s.Run(podman, "create", "--name=c", "--network=none", image.ID, "true")
		hostAttack(t, s.Run(podman, "mount", "c"))
		s.Run(podman, "umount", "c")
		s.Run(podman, "rm", "c")
		if now := objects(); now != before {
			t.Error("objects changed through a mount on the host")
		}
	})
	if out := s.Container(podman, image.ID, "head -c 4 /etc/passwd"); out != "root" {
		t.Errorf("the image's passwd begins with %q", out)
	}
}

// hostAttack does to a mounted root what root of the host can do.
func hostAttack(t *testing.T, root string) {
	t.Helper()
	for _, name := range []string{"etc/passwd", "bin/busybox"} {
		path := filepath.Join(root, name)
		for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_APPEND} {
			if fd, err := unix.Open(path, flags, 0); err == nil {
				unix.Write(fd, []byte("evil"))
				unix.Close(fd)
			}
		}
		if fd, err := unix.Open(path, unix.O_RDONLY, 0); err == nil {
			if f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0); err == nil {
				f.WriteString("evil")
				f.Close()
			}
			unix.Fchmod(fd, 0o777)
			unix.Fchown(fd, 7, 7)
			unix.Fsetxattr(fd, "user.evil", []byte("x"), 0)
			unix.Futimes(fd, make([]unix.Timeval, 2))
			unix.Close(fd)
		}
		unix.Truncate(path, 1)
		unix.Chmod(path, 0o4777)
		unix.Lchown(path, 7, 7)
		unix.Setxattr(path, "trusted.evil", []byte("x"), 0)
		unix.UtimesNanoAt(unix.AT_FDCWD, path, make([]unix.Timespec, 2), 0)
		unix.Link(path, filepath.Join(root, "evil"))
	}
}
