package layers_test

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// A target is a host beside a home, with things that an image would like to reach.
type target struct {
	t    *testing.T
	c    *layers.Catalog
	host string
	was  map[string]string
}

func newTarget(t *testing.T) *target {
	needRoot(t)
	base := tmpfs(t)
	x := &target{t: t, c: openCatalog(t, base+"/home", layers.Options{}), host: base + "/host"}
	must(t, os.MkdirAll(x.host+"/etc", 0o755))
	must(t, os.WriteFile(x.host+"/etc/passwd", []byte("root:x:0:0\n"), 0o600))
	must(t, os.Symlink("passwd", x.host+"/etc/alias"))
	must(t, unix.Mkfifo(x.host+"/fifo", 0o600))
	x.was = x.look()
	return x
}

// look describes the host, with the times of every change to an inode.
func (x *target) look() map[string]string {
	out := describeTree(x.t, x.host, true)
	for p := range out {
		st := statOf(x.t, x.host+"/"+p)
		out[p] += fmt.Sprint(" changed ", st.Ctim, " links ", st.Nlink)
	}
	return out
}

// attack applies a tar, which may be refused, and sees that the host is as it was and the store sound.
func (x *target) attack(id, parent string, items ...item) (*layers.Layer, error) {
	x.t.Helper()
	l, err := tryApply(x.c, id, parent, makeTar(x.t, items...))
	if now := x.look(); !maps.Equal(now, x.was) {
		x.t.Errorf("layer %s reached the host:\n%v\nwas\n%v", id, now, x.was)
	}
	must(x.t, x.c.Repo().Fsck(context.Background(), store.FsckOptions{Workers: 1}, func(f store.Finding) { x.t.Errorf("fsck: %s", f) }))
	return l, err
}

// each runs attacks that are each to be taken or refused.
func (x *target) each(taken bool, attacks map[string][]item) {
	for name, items := range attacks {
		id := fmt.Sprintf("%x", name)
		if _, err := x.attack(id, "", items...); (err == nil) != taken {
			x.t.Errorf("%s: taken is %v (%v)", name, err == nil, err)
		}
	}
}

// TestA01Symlinks writes through symlinks of all kinds.
func TestA01Symlinks(t *testing.T) {
	x := newTarget(t)
	up := strings.Repeat("../", 40)
	x.each(true, map[string][]item{
		"absolute": {symlink("l", x.host), file("l/etc/passwd", "evil")},
		"relative": {symlink("l", up+x.host[1:]), file("l/etc/passwd", "evil")},
		"chained":  {symlink("a", "b"), symlink("b", "c"), symlink("c", x.host+"/etc"), file("a/passwd", "evil")},
		"parent":   {symlink("d/l", "../.."+x.host), file("d/l/new", "evil")},
		"replaced": {dir("d", 0o755), file("d/x", ""), symlink("d", x.host), file("d/etc/passwd", "evil")},
		"itself":   {symlink("l", x.host+"/etc/passwd"), file("l", "evil")},
		"proc":     {symlink("l", "/proc/self/cwd"), file("l/evil", "evil")},
	})
	_, err := x.attack("lower", "", symlink("l", x.host), symlink("f", x.host+"/etc/passwd"))
	must(t, err)
	l, err := x.attack("upper", "lower", file("l/etc/passwd", "evil"), file("f", "evil"))
	must(t, err)
	if st := statOf(t, l.TreeDir()+"/l"); st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("the symlink of the lower layer was followed: mode %o", st.Mode)
	}
}

// TestA02Root makes the root itself a symlink, for later layers to follow.
func TestA02Root(t *testing.T) {
	x := newTarget(t)
	named := func(name string) item { return symlink("x", x.host).with(func(h *tar.Header) { h.Name = name }) }
	x.each(false, map[string][]item{
		"slash dot": {named("/."), file("etc/passwd", "evil")}, "dot": {named(".")}, "dot slash": {named("./")},
		"slash": {named("/")}, "dot-dot": {named("a/..")},
		"hardlink": {symlink("l", x.host), link(".", "l")}, "file": {file("./.", "x").with(func(h *tar.Header) { h.Name = "." })},
	})
	_, err := x.attack("base", "", file("a", ""))
	must(t, err)
	if _, err := x.attack("later", "base", named("/.")); err == nil {
		t.Error("a later layer's root may be a symlink")
	}
}

// TestA03Hardlinks links to what is not the layer's.
func TestA03Hardlinks(t *testing.T) {
	x := newTarget(t)
	up := strings.Repeat("../", 40)
	x.each(false, map[string][]item{
		"absolute": {link("a", x.host+"/etc/passwd")}, "relative": {link("a", up+x.host[1:]+"/etc/passwd")},
		"via symlink": {symlink("l", x.host), link("a", "l/etc/passwd")}, "via root": {link("a", "/proc/self/root"+x.host+"/etc/passwd")},
		"missing": {link("a", "b")}, "directory": {dir("b", 0o755), link("a", "b")}, "later": {link("a", "b"), file("b", "")}, "itself": {link("a", "a")},
	})
	_, err := x.attack("lower", "", file("b", "lower"))
	must(t, err)
	if _, err := x.attack("upper", "lower", link("a", "b")); err == nil {
		t.Error("a hardlink into another layer is taken")
	}
}

// TestA04SharedObject has a hardlink whose metadata differ from the object that other layers share.
func TestA04SharedObject(t *testing.T) {
	x := newTarget(t)
	first, err := x.attack("first", "", file("a", "shared content"))
	must(t, err)
	was := describeTree(t, first.TreeDir(), true)
	for i, items := range [][]item{
		{file("a", "shared content"), link("b", "a").with(func(h *tar.Header) { h.Mode = 0o4777 })},
		{file("a", "shared content"), link("b", "a").with(func(h *tar.Header) { h.Uid = 1000; h.ModTime = time.Unix(1, 0) })},
		{file("a", "shared content"), link("b", "a").attr("user.evil", "1")},
		{file("a", "shared content"), symlink("s", "a"), link("b", "s").with(func(h *tar.Header) { h.Mode = 0o777 })},
		{file("a", "shared content"), file("a", "shared content").with(func(h *tar.Header) { h.Mode = 0o600 })},
	} {
		_, err := x.attack(fmt.Sprint("l", i), "", items...) // with fsck: no object was changed
		must(t, err)
		compareTrees(t, was, describeTree(t, first.TreeDir(), true))
	}
}

// TestA05MetadataThroughSymlinks changes modes, owners, times and attributes of what a symlink leads to.
func TestA05MetadataThroughSymlinks(t *testing.T) {
	x := newTarget(t)
	loud := func(i item) item {
		return i.with(func(h *tar.Header) { h.Mode = 0o6777; h.Uid, h.Gid = 1000, 1000; h.ModTime = time.Unix(7, 7) })
	}
	x.each(true, map[string][]item{
		"symlink":   {loud(symlink("l", x.host+"/etc/passwd"))},
		"hardlink":  {symlink("l", x.host+"/etc/passwd"), loud(link("m", "l"))},
		"directory": {symlink("l", x.host), loud(dir("l", 0o777))},
		"below":     {symlink("l", x.host), loud(dir("l/etc", 0o777)).attr("user.evil", "1")},
		"twice":     {loud(symlink("l", x.host+"/fifo")), loud(symlink("l", x.host+"/fifo"))},
		"attribute": {symlink("l", x.host+"/etc").attr("trusted.evil", "1")},
	})
	x.each(false, map[string][]item{"user attribute": {symlink("l", x.host+"/etc/passwd").attr("user.evil", "1")}})
}

// TestA06Parallel stages layers at once whose trees turn directories into symlinks: each is made in a stage of its own, and looks at
// no other.
func TestA06Parallel(t *testing.T) {
	x := newTarget(t)
	tars := [][]byte{
		makeTar(t, dir("d", 0o755), file("d/etc/passwd", "good")),
		makeTar(t, symlink("d", x.host)),
		makeTar(t, dir("d", 0o755), file("d/x", ""), symlink("d", x.host), file("d/etc/passwd", "evil")),
	}
	for round := range 5 {
		staged := make([]*layers.Staged, 9)
		errs := make(chan error)
		for i := range staged {
			go func() {
				s, err := x.c.Stage(context.Background(), strings.NewReader(string(tars[i%len(tars)])), layers.StageOptions{})
				staged[i] = s
				errs <- err
			}()
		}
		for range staged {
			must(t, <-errs)
		}
		for i, s := range staged {
			id := fmt.Sprintf("l%d-%d", round, i)
			_, err := x.c.Create(id, "", layers.CreateOptions{})
			must(t, errors.Join(err, x.c.Commit(id, s), s.Close()))
			l, err := x.c.Layer(id)
			must(t, err)
			compareCheckout(t, x.c, l)
		}
	}
	_, err := x.attack("last", "")
	must(t, err)
}

// TestA07Whiteouts compares whiteouts of all kinds with what the overlay driver makes of them.
func TestA07Whiteouts(t *testing.T) {
	x := newTarget(t)
	opaque := ".wh..wh..opq"
	for name, items := range map[string][]item{
		"opaque root":         {file(opaque, ""), file("x", "")},
		"via symlink":         {dir("d", 0o755), symlink("l", "d"), file("l/.wh.x", ""), file("l/"+opaque, "")},
		"via symlink out":     {symlink("l", x.host), file("l/.wh.etc", ""), file("l/"+opaque, "")},
		"nested":              {dir("a", 0o755), dir("a/b", 0o755), file("a/.wh.c", ""), file("a/b/.wh.d", "")},
		"then add":            {file(".wh.x", ""), file("x", "1")},
		"opaque before":       {dir("d", 0o755), file("d/"+opaque, ""), file("d/x", "1")},
		"opaque after":        {dir("d", 0o755), file("d/x", "1"), file("d/"+opaque, "")},
		"of a whiteout":       {file(".wh..wh.x", "")},
		"with a body":         {file(".wh.x", "body")},
		"of upstream's names": {file(".wh..wh.orph", ""), dir(".wh..wh.plnk", 0o755)},
	} {
		t.Run(name, func(t *testing.T) {
			if !compareUnpack(t, x.c, fmt.Sprintf("%x", name), makeTar(t, items...)) {
				if _, err := x.attack(fmt.Sprintf("x%x", name), "", items...); err != nil {
					t.Logf("refused by both: %v", err)
				}
			}
		})
	}
	x.each(false, map[string][]item{
		"empty": {file(".wh.", "")}, "dot": {file(".wh..", "")}, "dot-dot": {file("d/.wh...", "")}, "empty below": {file("d/.wh.", "")},
	})
}

// TestA09Specials applies devices and fifos, and reads all of the layer: nothing is ever opened that would block or act.
func TestA09Specials(t *testing.T) {
	x := newTarget(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l, err := x.attack("specials", "", of(tar.TypeFifo, "fifo"), link("fifo2", "fifo"), of(tar.TypeChar, "null").with(func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 3 }),
			of(tar.TypeBlock, "disk").with(func(h *tar.Header) { h.Devmajor, h.Devminor = 8, 0 }), symlink("etc/passwd", "../fifo"), file("f", "1"))
		if err != nil {
			t.Error(err)
			return
		}
		compareCheckout(t, x.c, l)
		for _, name := range []string{"fifo", "fifo2", "null", "disk", "etc/passwd"} {
			f, err := l.Open(name)
			if err == nil {
				_, err = io.ReadAll(f)
				err = errors.Join(err, f.Close())
			}
			if err == nil {
				t.Errorf("%s can be read like a file", name)
			}
		}
		for _, f := range checkAll(t, x.c) {
			t.Errorf("check: %+v", f)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("something waits for a fifo")
	}
}

// TestA12Paths has names that are no names.
func TestA12Paths(t *testing.T) {
	x := newTarget(t)
	long := strings.Repeat("n", 255)
	x.each(true, map[string][]item{
		"dot-dot": {file("../../../x", "")}, "absolute": {file("/x", "")}, "not UTF-8": {file("\xff\xfe/\x80", "")}, "control": {file("a\nb\tc\x01", "")},
		"case": {file("A", "1"), file("a", "2")}, "slashes": {dir("a///b//", 0o755)}, "longest": {file(long+"/"+long, "")},
		"more than a path can be": {file(strings.Repeat(long+"/", 20)+"x", "")}, "backslash": {file(`..\..\x`, ""), file(`C:\x`, "")},
		"normal forms": {file("\u00e9", "1"), file("e\u0301", "2")},
	})
	x.each(false, map[string][]item{"too long": {file(long+"n", "")}, "too long below": {file(long+"n/x", "")}})
	for name, flag := range map[string]byte{"file": tar.TypeReg, "symlink": tar.TypeSymlink} {
		data := rawTar(rawEntry{name: "pax", flag: 'x', body: paxRecord("path", "a\x00b")}, rawEntry{name: "x", flag: flag, link: "y"})
		l, err := tryApply(x.c, "nul-"+name, "", data)
		if err == nil {
			entries, err := os.ReadDir(l.TreeDir())
			must(t, err)
			for _, e := range entries {
				if e.Name() == "a" {
					t.Errorf("%s: a name was cut at its NUL", name)
				}
			}
		}
	}
	if l, err := x.c.Layer(fmt.Sprintf("%x", "case")); err != nil || !slices.Equal(shortTree(t, l.TreeDir()), []string{`A: mode 100644 content "1"`, `a: mode 100644 content "2"`}) {
		t.Errorf("names that differ in case: %v", err)
	}
}

// TestA13Duplicates flips one name between all types, as overlay's extraction does it.
func TestA13Duplicates(t *testing.T) {
	x := newTarget(t)
	forms := map[string]func() []item{
		"file": func() []item { return []item{file("x", "1")} }, "directory": func() []item { return []item{dir("x", 0o711), file("x/y", "2")} },
		"symlink": func() []item { return []item{symlink("x", "z")} }, "fifo": func() []item { return []item{of(tar.TypeFifo, "x")} },
		"hardlink": func() []item { return []item{file("w", "3"), link("x", "w")} }, "whiteout": func() []item { return []item{file(".wh.x", "")} },
	}
	names := slices.Sorted(maps.Keys(forms))
	for _, a := range names {
		for _, b := range names {
			for _, c := range names {
				compareUnpack(t, x.c, a+b+c, makeTar(t, slices.Concat(forms[a](), forms[b](), forms[c]())...))
			}
		}
	}
}

// TestA14Many has very many entries: twice as many take about twice as long.
func TestA14Many(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, bigTmpfs(t)+"/home", layers.Options{})
	n := 10_000
	if os.Getenv("SOAK") != "" {
		n = 500_000
	}
	took := func(id string, n int) time.Duration {
		var before, after unix.Rusage
		must(t, unix.Getrusage(unix.RUSAGE_SELF, &before))
		s, err := c.Stage(t.Context(), emptyFiles(n), layers.StageOptions{ID: id})
		must(t, err)
		_, err = c.Create(id, "", layers.CreateOptions{})
		must(t, errors.Join(err, c.Commit(id, s), s.Close()))
		must(t, unix.Getrusage(unix.RUSAGE_SELF, &after))
		if l, err := c.Layer(id); err != nil || l.Entries != int64(n)+2 {
			t.Errorf("layer %+v, want %d entries: %v", l, n+2, err)
		}
		removeAll(t, c, id)
		return time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	}
	took("warm", n/10)
	one, two := took("one", n), took("two", 2*n)
	if two > 5*one {
		t.Errorf("%d entries cost %v of processor, twice as many %v", n, one, two)
	}
}

// emptyFiles is a tar of so many empty files, written as it is read.
func emptyFiles(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriter(w)
		tw := tar.NewWriter(b)
		var err error
		for i := 0; i < n && err == nil; i++ {
			err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/%07d", i), Mode: 0o644, ModTime: time.Unix(2000, 0)})
		}
		w.CloseWithError(errors.Join(err, tw.Close(), b.Flush()))
	}()
	return r
}

// TestA15LayerIDs gives ids that are paths.
func TestA15LayerIDs(t *testing.T) {
	x := newTarget(t)
	for _, id := range []string{"", ".", "..", "../host", "../../host/etc", "a/b", "/etc", "sha256:../../x", "a\nb", ".hidden", strings.Repeat("x", 300), "a\x00b"} {
		if _, err := x.c.Create(id, "", layers.CreateOptions{}); err == nil && strings.ContainsAny(id, "/\n\x00") {
			t.Errorf("%q is taken for a layer's id", id)
		} else if err == nil {
			t.Errorf("%q is taken", id)
		}
		if _, err := x.c.Layer(id); err == nil {
			t.Errorf("there is a layer %q", id)
		}
		if cleanup, err := x.c.Remove(id); err == nil && cleanup != nil {
			must(t, cleanup())
		}
	}
	_, err := x.attack("ok", "")
	must(t, err)
}

// TestA19Owners has owners at and beyond the edge of what the kernel takes: kept exactly, or refused.
func TestA19Owners(t *testing.T) {
	x := newTarget(t)
	for i, id := range []int{1<<31 - 1, 1 << 31, 1<<31 + 7, math.MaxUint32 - 1, math.MaxUint32, 1 << 32, 1<<32 + 1000, math.MaxInt64, -1, -2} {
		for name, items := range map[string][]item{
			"uid": {file("x", "1").with(func(h *tar.Header) { h.Uid = id })}, "gid": {dir("x", 0o755).with(func(h *tar.Header) { h.Gid = id })},
			"special": {of(tar.TypeFifo, "x").with(func(h *tar.Header) { h.Uid, h.Gid = id, id })},
		} {
			var data []byte
			if id < 0 { // which Go's writer takes, in the old GNU form
				data = rawTar(rawEntry{name: "x", flag: items[0].Typeflag, uid: int64(id), gid: int64(id)})
			} else {
				data = makeTar(t, items...)
			}
			l, err := tryApply(x.c, fmt.Sprint(name, i), "", data)
			if err != nil {
				continue
			}
			st := statOf(t, l.TreeDir()+"/x")
			if name != "gid" && int64(st.Uid) != int64(id) || name != "uid" && int64(st.Gid) != int64(id) {
				t.Errorf("%s %d became %d:%d", name, id, st.Uid, st.Gid)
			}
		}
	}
	_, err := x.attack("plain", "", file("x", "").with(func(h *tar.Header) { h.Uid = 4_000_000_000 }))
	must(t, err)
}

// TestA20Metadata has names, attributes and records that the store or ostree themselves give a meaning.
func TestA20Metadata(t *testing.T) {
	x := newTarget(t)
	plain, err := x.attack("plain", "", file("a", "1"))
	must(t, err)
	evil := file("a", "1").with(func(h *tar.Header) {
		h.PAXRecords["comment"], h.PAXRecords["ostree-storage.format"], h.PAXRecords["LIBARCHIVE.xattr.x"] = "layer/plain", "9", "1"
		h.PAXRecords["containers.storage.id"] = "plain"
	})
	l, err := x.attack("records", "", evil)
	must(t, err)
	if l.Commit != plain.Commit {
		t.Error("records that mean nothing to us make another commit")
	}
	l, err = x.attack("names", "", file(".oci-raw.x", "1"), file("objects/aa", ""), file(".objects/x", ""), file(".lock", ""), file("record", "{}"), file("ref", ""),
		file(".ostree-wh.x", ""), file("a", "1").attr("user.ostreemeta", "x").attr("user.containers.override_stat", "0:0:0777"))
	must(t, err)
	compareCheckout(t, x.c, l)
	if _, err := os.Stat(l.TreeDir() + "/.ostree-wh.x"); err != nil {
		t.Error(err)
	}
}
