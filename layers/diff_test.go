package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

func readTar(t *testing.T, b []byte) []*tar.Header {
	t.Helper()
	var all []*tar.Header
	for tr := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
}

func tarNames(t *testing.T, b []byte) []string {
	t.Helper()
	var names []string
	for _, h := range readTar(t, b) {
		names = append(names, h.Name)
	}
	return names
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// Upstream gives up on such trees; the lists are what `podman diff` should show.
func TestChangesWhereUpstreamFails(t *testing.T) {
	base := tmpfs(t)
	g := newRandomTree(t, base, 0)
	lower := g.dir("lower")
	writeFile(t, lower+"/was-file", "x")
	writeFile(t, lower+"/was-dir/sub/file", "x")
	must(t, os.Symlink("loop", lower+"/loop"))
	writeFile(t, lower+"/raw\xff/gone", "x")
	deeper := g.dir("deeper")
	writeFile(t, deeper+"/was-file/inside", "hidden by the file above it")
	lowers := []string{lower, deeper}
	upper := g.dir("upper")
	g.mount(upper, lowers, func(m string) {
		must(t, os.Remove(m+"/was-file"))
		writeFile(t, m+"/was-file/inside", "y")
		must(t, os.RemoveAll(m+"/was-dir"))
		writeFile(t, m+"/was-dir", "y")
		must(t, os.Remove(m+"/loop"))
		must(t, os.Mkdir(m+"/loop", 0o755))
		must(t, os.Remove(m+"/raw\xff/gone"))
		writeFile(t, m+"/raw\xff/new", "y")
	})
	got, err := layers.Changes(upper, lowers, layers.ChangesOptions{})
	must(t, err)
	want := []string{"D /loop", "C /raw\xff", "D /raw\xff/gone", "A /raw\xff/new", "C /was-dir", "D /was-file", "A /was-file/inside"}
	if g := ourLines(got); !slices.Equal(g, want) {
		t.Errorf("changes are %q, want %q", g, want)
	}
	names := tarNames(t, ourDiff(t, layers.DiffOptions{Upper: upper, Lowers: lowers}))
	want = []string{
		"loop/", "loop/.wh..wh..opq", "raw\xff/", "raw\xff/.wh.gone", "raw\xff/new", "was-dir",
		"was-file/", "was-file/.wh..wh..opq", "was-file/inside",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the tar has %q, want %q", names, want)
	}
}

// deepTree nests n directories, made one in another since no path reaches that far.
func deepTree(t *testing.T, root, name string, n int) {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range n {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	f, err := unix.Openat(fd, "leaf", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	unix.Close(f)
	unix.Close(fd)
}

// An fdCounter notes how many descriptors are open while a tar is written.
type fdCounter struct {
	t    *testing.T
	most int
}

func (c *fdCounter) Write(b []byte) (int, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	must(c.t, err)
	c.most = max(c.most, len(fds))
	return len(b), nil
}

func TestDeepTrees(t *testing.T) {
	base := tmpfs(t)
	const depth = 3000
	upper, lower, long := base+"/upper", base+"/lower", base+"/long"
	for _, d := range []string{upper, lower, long} {
		must(t, os.Mkdir(d, 0o755))
	}
	deepTree(t, upper, "dd", depth)
	deepTree(t, lower, "dd", depth)
	deepTree(t, long, strings.Repeat("n", 255), 40)

	c := &fdCounter{t: t}
	before, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	must(t, layers.WriteDiff(context.Background(), c, layers.DiffOptions{Upper: upper, Lowers: []string{lower}}))
	if c.most-len(before) > 200 {
		t.Errorf("%d descriptors open for a tree of %d levels", c.most-len(before), depth)
	}
	if n := len(tarNames(t, ourDiff(t, layers.DiffOptions{Upper: upper}))); n != depth+1 {
		t.Errorf("the tar has %d entries, want %d", n, depth+1)
	}
	u, err := layers.DiskUsage(upper)
	if must(t, err); u.Inodes != depth+2 {
		t.Errorf("usage has %d inodes, want %d", u.Inodes, depth+2)
	}
	changes, err := layers.Changes(upper, []string{lower}, layers.ChangesOptions{})
	must(t, err)
	if last := changes[len(changes)-1]; last.Kind != layers.ChangeModify || last.Path != strings.Repeat("/dd", depth)+"/leaf" {
		t.Errorf("the leaf is %s of %d bytes", last.Kind, len(last.Path))
	}
	naive, err := layers.NaiveChanges(upper, lower, layers.NaiveOptions{})
	if must(t, err); len(naive) < 1 || naive[0].Path != "/dd" {
		t.Errorf("naive changes are %d", len(naive))
	}
	naive, err = layers.NaiveChanges(upper, "", layers.NaiveOptions{})
	if must(t, err); len(naive) != depth+1 {
		t.Errorf("naive changes are %d", len(naive))
	}
	compareDiff(t, layers.DiffOptions{Upper: long, Lowers: []string{long}})
	if got, err := layers.Changes(long, []string{long}, layers.ChangesOptions{}); err != nil || len(got) != 1 {
		t.Errorf("a tree over itself has changes %v (%v), want only the leaf", got, err)
	}
	removeDeep(t, upper)
	removeDeep(t, lower)
}

// removeDeep empties a directory whose depth would make os.RemoveAll hold too many descriptors.
func removeDeep(t *testing.T, root string) {
	t.Helper()
	for {
		at := root
		for range 100 {
			if _, err := os.Lstat(at + "/dd"); err != nil {
				break
			}
			at += "/dd"
		}
		if at == root {
			return
		}
		_ = os.RemoveAll(root + "/dd.old")
		if _, err := os.Lstat(at + "/dd"); err != nil {
			must(t, os.RemoveAll(root+"/dd"))
			return
		}
		must(t, os.Rename(at+"/dd", root+"/dd.new"))
		must(t, os.RemoveAll(root+"/dd"))
		must(t, os.Rename(root+"/dd.new", root+"/dd"))
	}
}

func TestDiffAllXattrs(t *testing.T) {
	dir := tmpfs(t)
	f := dir + "/f"
	writeFile(t, f, "x")
	acl := func(id uint32) []byte {
		b := []byte{2, 0, 0, 0}
		for _, e := range []struct {
			tag, perm uint16
			id        uint32
		}{{1, 6, ^uint32(0)}, {2, 4, id}, {4, 4, ^uint32(0)}, {8, 4, id + 1}, {16, 6, ^uint32(0)}, {32, 4, ^uint32(0)}} {
			b = binary.LittleEndian.AppendUint16(b, e.tag)
			b = binary.LittleEndian.AppendUint16(b, e.perm)
			b = binary.LittleEndian.AppendUint32(b, e.id)
		}
		return b
	}
	for name, value := range map[string]string{
		"trusted.overlay.overlay.opaque": "y", "trusted.overlay.origin": "kernel's", "trusted.overlay.overlay.overlay.x": "twice", "trusted.t": "t",
		"user.u": "", "user.overlay.raw": "1", "security.selinux": "label", "system.posix_acl_access": string(acl(100005)), "security.x": "s",
	} {
		must(t, unix.Setxattr(f, name, []byte(value), 0))
	}
	must(t, os.Chown(f, 100000, 100001))
	maps := []layers.IDMap{{ContainerID: 0, HostID: 100000, Size: 10}}
	h := readTar(t, ourDiff(t, layers.DiffOptions{Upper: dir, AllXattrs: true, UIDMaps: maps, GIDMaps: maps}))[0]
	want := map[string]string{
		"trusted.overlay.opaque": "y", "trusted.overlay.overlay.x": "twice", "trusted.t": "t", "user.overlay.raw": "1",
		"system.posix_acl_access": string(acl(5)), "security.x": "s",
	}
	for name, value := range want {
		if got := h.PAXRecords["SCHILY.xattr."+name]; got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
		delete(h.PAXRecords, "SCHILY.xattr."+name)
	}
	if delete(h.PAXRecords, "SCHILY.xattr.user.u"); len(h.PAXRecords) > 0 || h.Uid != 0 || h.Gid != 1 {
		t.Errorf("also in the tar: %q, owner %d:%d", h.PAXRecords, h.Uid, h.Gid)
	}
}

var oddTime = time.Unix(-5, 123456789)

func TestDiffUserXattr(t *testing.T) {
	base := tmpfs(t)
	g := newRandomTree(t, base, 0)
	trusted, user, lower := g.dir("trusted"), g.dir("user"), g.dir("lower")
	must(t, os.Mkdir(lower+"/d", 0o755))
	for dir, attr := range map[string]string{trusted: "trusted.overlay.opaque", user: "user.overlay.opaque"} {
		must(t, os.Mkdir(dir+"/d", 0o700))
		must(t, unix.Setxattr(dir+"/d", attr, []byte("y"), 0))
		must(t, unix.Setxattr(dir+"/d", "user.kept", []byte("1"), 0))
		must(t, os.Chtimes(dir+"/d", oddTime, oddTime))
	}
	a := ourDiff(t, layers.DiffOptions{Upper: trusted, Lowers: []string{lower}})
	b := ourDiff(t, layers.DiffOptions{Upper: user, Lowers: []string{lower}, UserXattr: true})
	if !bytes.Equal(a, b) || !slices.Equal(tarNames(t, a), []string{"d/", "d/.wh..wh..opq"}) {
		t.Errorf("the tars have %q and %q", tarNames(t, a), tarNames(t, b))
	}
	c, err := layers.Changes(user, []string{lower}, layers.ChangesOptions{UserXattr: true})
	if must(t, err); fmt.Sprint(c) != "[D /d]" {
		t.Errorf("changes are %v", c)
	}
}

// hookWriter calls hook once, at the first byte that arrives.
type hookWriter struct{ hook func() }

func (w *hookWriter) Write(b []byte) (int, error) {
	if w.hook != nil {
		w.hook()
		w.hook = nil
	}
	return len(b), nil
}

func TestDiffOfChangingTree(t *testing.T) {
	base := tmpfs(t)
	writeFile(t, base+"/a-large", strings.Repeat("x", 1<<20))
	writeFile(t, base+"/b", strings.Repeat("y", 1<<20))
	for i := range 300 {
		writeFile(t, fmt.Sprintf("%s/d%d/f", base, i), "z")
	}
	var skipped []string
	o := layers.DiffOptions{Upper: base, Skipped: func(path string, err error) { skipped = append(skipped, path) }}

	grown := &hookWriter{func() {
		f, err := os.OpenFile(base+"/a-large", os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("more")
		must(t, errors.Join(err, f.Close()))
		must(t, os.RemoveAll(base+"/d7"))
		must(t, os.Remove(base+"/b"))
	}}
	must(t, layers.WriteDiff(context.Background(), grown, o))
	if !slices.Equal(skipped, []string{"/b", "/d7"}) {
		t.Errorf("skipped %q", skipped)
	}

	shrunk := &hookWriter{func() { must(t, os.Truncate(base+"/a-large", 600<<10)) }}
	err := layers.WriteDiff(context.Background(), shrunk, o)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "/a-large") {
		t.Errorf("a file that shrinks: %v", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	err = layers.WriteDiff(ctx, &hookWriter{cancel}, o)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
