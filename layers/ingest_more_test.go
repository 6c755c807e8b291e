package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// TestForceMask compares a forced mode with what containers/storage makes of it.
func TestForceMask(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	c := openCatalog(t, base+"/home", layers.Options{})
	data := makeTar(t, dir("./", 0o711).with(func(h *tar.Header) { h.Uid = 3 }), file("d/x", "1").with(func(h *tar.Header) { h.Uid, h.Mode = 7, 0o4755 }), link("d/l", "d/x"), symlink("s", "x"),
		of(tar.TypeBlock, "dev").with(func(h *tar.Header) { h.Devmajor, h.Devminor = 8, 1 }), of(tar.TypeFifo, "f"), dir("e", 0o1777), file("e/.wh.gone", ""))
	mask := os.FileMode(0o755)
	want, err := os.MkdirTemp(base, "upstream")
	must(t, err)
	must(t, archive.Unpack(bytes.NewReader(data), want, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat, ForceMask: &mask}))
	bits := uint32(mask)
	s, err := c.Stage(context.Background(), bytes.NewReader(data), layers.StageOptions{ForceMask: &bits})
	must(t, err)
	_, err = c.Create("x", "", layers.CreateOptions{})
	must(t, err)
	must(t, c.Commit("x", s))
	l, err := c.Layer("x")
	must(t, err)
	compareTrees(t, describeTree(t, want, false), describeTree(t, l.TreeDir(), false))
	compareCheckout(t, c, l)
}

// TestStoreLabel has a label on everything, whatever the tar says.
func TestStoreLabel(t *testing.T) {
	needRoot(t)
	const label = "system_u:object_r:container_ro_file_t:s0"
	home := tmpfs(t) + "/home"
	c := openCatalog(t, home, layers.Options{Label: label})
	l := apply(t, c, "x", "", makeTar(t, dir("d", 0o755), file("d/x", "1").attr("security.selinux", "other"), file("d/e", ""), symlink("s", "t"), symlink("raw", "\xff"),
		of(tar.TypeFifo, "f"), file(".wh.gone", ""), file("d/.wh..wh..opq", ""), file("o", "1").attr("trusted.overlay.x", "1"), file("etc/x", "1")))
	check := func(root string) {
		t.Helper()
		must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			must(t, err)
			b := make([]byte, 100)
			n, err := unix.Lgetxattr(path, "security.selinux", b)
			if err != nil || string(b[:n]) != label+"\x00" {
				t.Errorf("%s: label %q, %v", path, b[:max(n, 0)], err)
			}
			return nil
		}))
	}
	check(l.TreeDir())
	dir := home + "-checkout"
	must(t, os.Mkdir(dir, 0o700))
	must(t, layers.Checkout(context.Background(), c.Repo(), l.Commit, dir, layers.CheckoutOptions{}))
	check(dir)
	must(t, l.Walk(context.Background(), func(e *layers.Entry) error {
		must(t, e.Load(c.Repo()))
		for _, x := range e.Xattrs {
			if x.Name == "security.selinux" {
				t.Errorf("%s: the label is told", e.Path)
			}
		}
		return nil
	}))
}

// TestUserXattr has overlay's marks as a user namespace needs them, and no devices.
func TestUserXattr(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{UserXattr: true})
	l := apply(t, c, "x", "", makeTar(t, file("d/.wh..wh..opq", ""), file("x", "1").attr("user.overlay.metacopy", "m").attr("trusted.x", "1"),
		of(tar.TypeBlock, "dev"), of(tar.TypeFifo, "f")))
	got := map[string]string{}
	for p, names := range map[string][]string{"d": {"user.overlay.opaque"}, "x": {"user.overlay.overlay.metacopy", "user.overlay.metacopy", "trusted.x"}} {
		for _, name := range names {
			b := make([]byte, 10)
			if n, err := unix.Lgetxattr(l.TreeDir()+"/"+p, name, b); err == nil {
				got[name] = string(b[:n])
			}
		}
	}
	if fmt.Sprint(got) != "map[user.overlay.opaque:y user.overlay.overlay.metacopy:m]" {
		t.Errorf("attributes %v", got)
	}
	if _, err := os.Lstat(l.TreeDir() + "/dev"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("device: %v", err)
	}
}

// TestA10Sparse reads sparse files in the two forms that GNU tar writes and containers/storage can keep, and refuses the third.
func TestA10Sparse(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	c := openCatalog(t, base+"/home", layers.Options{})
	must(t, os.Mkdir(base+"/src", 0o700))
	f, err := os.Create(base + "/src/sparse")
	must(t, err)
	const size = 40 << 20
	must(t, f.Truncate(size))
	for _, at := range []int64{0, 1 << 20, 30 << 20} {
		_, err = f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, f.Close())
	want, err := os.ReadFile(base + "/src/sparse")
	must(t, err)
	for i, args := range [][]string{{"--format=gnu"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"}} {
		out, err := run("tar", append(args, "-S", "-C", base+"/src", "-cf", base+"/x.tar", "sparse")...)
		if err != nil {
			t.Fatal(out)
		}
		data, err := os.ReadFile(base + "/x.tar")
		must(t, err)
		if args[0] == "--format=gnu" {
			if _, err := c.Stage(context.Background(), bytes.NewReader(data), layers.StageOptions{}); err == nil || !strings.Contains(err.Error(), "--format=posix") {
				t.Errorf("%q: %v", args, err)
			}
			continue
		}
		l := apply(t, c, fmt.Sprint("sparse", i), "", data)
		got, err := os.ReadFile(l.TreeDir() + "/sparse")
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%q: content differs", args)
		}
		if st := statOf(t, l.TreeDir()+"/sparse"); st.Blocks > 2048 {
			t.Errorf("%q: %d blocks, the holes are gone", args, st.Blocks)
		}
	}
}

// TestA10HugeSparse has a file of eight exabytes of nothing.
func TestA10HugeSparse(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: 0, Mode: 0o644, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"comment": "replaced below"}}))
	must(t, w.Close())
	record := func(k, v string) string {
		n := len(k) + len(v) + 3
		for d := 0; ; {
			if s := fmt.Sprintf("%d %s=%s\n", n+d, k, v); len(s) == n+d {
				return s
			}
			d++
		}
	}
	pax := record("GNU.sparse.major", "0") + record("GNU.sparse.minor", "1") + record("GNU.sparse.name", "huge") +
		record("GNU.sparse.size", "9000000000000000000") + record("GNU.sparse.numblocks", "1") + record("GNU.sparse.map", "9000000000000000000,0")
	var raw bytes.Buffer
	block := func(name string, flag byte, body string) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(body), 0))
		copy(h[148:], "        ")
		h[156] = flag
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		raw.Write(h)
		raw.WriteString(body)
		raw.Write(make([]byte, (512-len(body)%512)%512))
	}
	block("pax", 'x', pax)
	block("x", '0', "")
	raw.Write(make([]byte, 1024))
	start := time.Now()
	_, err := c.Stage(context.Background(), &raw, layers.StageOptions{})
	var e *layers.EntryError
	if !errors.As(err, &e) || e.Path != "huge" || !strings.Contains(err.Error(), "larger than the filesystem") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestA14Deep has directories far deeper than a path can name.
func TestA14Deep(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	c := openCatalog(t, base+"/home", layers.Options{})
	depth := 3000
	if os.Getenv("SOAK") != "" {
		depth = 10_000
	}
	deep := strings.Repeat("d/", depth)
	l := apply(t, c, "x", "", makeTar(t, file(deep+"x", "deep"), link("top", deep+"x"), symlink("l", "/"+strings.TrimSuffix(deep[:2000], "/")), file("l/y", "through")))
	f, err := l.Open(deep + "x")
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	if string(b) != "deep" {
		t.Errorf("content %q", b)
	}
	flatten(t, []*layers.Layer{l}, base+"/flat")
	must(t, os.Mkdir(base+"/out", 0o700))
	must(t, layers.Checkout(context.Background(), c.Repo(), l.Commit, base+"/out", layers.CheckoutOptions{}))
	for _, root := range []string{l.TreeDir(), base + "/flat", base + "/out"} {
		if st := statOf(t, root+"/top"); st.Nlink < 2 {
			t.Errorf("%s: the hardlink is none", root)
		}
	}
	if _, err := tryApply(c, "toodeep", "", makeTar(t, file(strings.Repeat("d/", 20000)+"x", ""))); err == nil || !strings.Contains(err.Error(), "too deep") {
		t.Errorf("deeper: %.200v", err)
	}
	removeAll(t, c, "x")
	for _, name := range []string{"flat", "out"} {
		if out, err := run("rm", "-rf", base+"/"+name); err != nil {
			t.Error(out)
		}
	}
}

// TestA13ManyOfOneName replaces one name over and over.
func TestA13ManyOfOneName(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	var items []item
	n := 3000
	if os.Getenv("SOAK") != "" {
		n = 1_000_000
	}
	for i := range n {
		items = append(items, file("d/x", fmt.Sprint(i)), link("d/y", "d/x"))
	}
	l := apply(t, c, "x", "", makeTar(t, items...))
	b, err := os.ReadFile(l.TreeDir() + "/d/x")
	must(t, err)
	if string(b) != fmt.Sprint(n-1) || l.Entries != 4 {
		t.Errorf("content %q, %d entries", b, l.Entries)
	}
	removeAll(t, c, "x")
	if left := countFiles(t, c.Home()+"/repo/objects"); left != 0 {
		t.Errorf("%d objects left", left)
	}
}

// TestCancel ends a stage in the middle.
func TestCancel(t *testing.T) {
	needRoot(t)
	home := tmpfs(t) + "/home"
	c := openCatalog(t, home, layers.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	go func() {
		data := makeTar(t, file("a", "1"), file("large", strings.Repeat("x", 30<<20)))
		_, _ = w.Write(data[:20<<20])
		cancel()
		w.CloseWithError(errors.New("cut off"))
	}()
	if _, err := c.Stage(ctx, r, layers.StageOptions{}); err == nil {
		t.Error("taken")
	}
	entries, err := os.ReadDir(home + "/repo/extensions/ostree-storage/staging")
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("left %v", entries)
	}
}

// TestTrailingBytes reads a tar to its very end.
func TestTrailingBytes(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	data := append(makeTar(t, file("a", "1")), make([]byte, 1<<20)...)
	r := bytes.NewReader(append(data, "and more"...))
	s, err := c.Stage(context.Background(), r, layers.StageOptions{})
	must(t, err)
	must(t, s.Close())
	if r.Len() != 0 {
		t.Errorf("%d bytes were not read", r.Len())
	}
}
