package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

func of(typeflag byte, name string) item {
	return item{Header: tar.Header{Typeflag: typeflag, Name: name, Mode: 0o644, ModTime: time.Unix(2000, 7)}}
}

// with changes the header of an item.
func (i item) with(change func(*tar.Header)) item {
	if i.PAXRecords == nil {
		i.PAXRecords = map[string]string{}
	}
	change(&i.Header)
	return i
}

func (i item) attr(name, value string) item {
	return i.with(func(h *tar.Header) { h.PAXRecords["SCHILY.xattr."+name] = value })
}

// shortTree lists a layer directory in short: one line an entry, without times and owners of 0:0.
func shortTree(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	for p, s := range describeTree(t, root, false) {
		if p == "." {
			continue
		}
		s = strings.ReplaceAll(s, " owner 0:0", "")
		s = strings.ReplaceAll(s, " inode of "+p, "")
		lines = append(lines, p+": "+s)
	}
	slices.Sort(lines)
	return lines
}

// TestIngestRules has what random tars do not get to, and what upstream refuses and we take.
func TestIngestRules(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	plain := func(name, body string) string { return fmt.Sprintf("%s: mode 100644 content %q", name, body) }
	tests := []struct {
		name  string
		items []item
		want  []string
	}{
		{"nothing", nil, nil},
		{"dot-dot leads nowhere", []item{file("../../x", "1"), file("a/../../y", "2")}, []string{plain("x", "1"), plain("y", "2")}},
		{"absolute", []item{file("/x", "1")}, []string{plain("x", "1")}},
		{"last wins", []item{file("x", "1"), file("./x", "2")}, []string{plain("x", "2")}},
		{"directory over file", []item{file("x", "1"), dir("x", 0o700), file("x/y", "2")}, []string{"x: mode 40700", plain("x/y", "2")}},
		{"file over directory", []item{dir("x", 0o700), file("x/y/z", "2"), file("x", "1")}, []string{plain("x", "1")}},
		{"symlink over directory, and through it", []item{dir("b", 0o755), dir("x", 0o755), file("x/y", "2"), symlink("x", "b"), file("x/z", "3")},
			[]string{"b: mode 40755", plain("b/z", "3"), "x: mode 120777 target \"b\""}},
		{"through a dangling symlink", []item{symlink("l", "/d/e"), file("l/x", "1")},
			[]string{"d/e: mode 40755", plain("d/e/x", "1"), "d: mode 40755", "l: mode 120777 target \"/d/e\""}},
		{"symlink that leads out", []item{symlink("l", "../../../../etc"), file("l/x", "1")},
			[]string{"etc: mode 40755", plain("etc/x", "1"), "l: mode 120777 target \"../../../../etc\""}},
		{"whiteout", []item{file("d/.wh.x", "")}, []string{"d/x: whiteout", "d: mode 40755"}},
		{"whiteout twice", []item{file(".wh.x", ""), file(".wh.x", "")}, []string{"x: whiteout"}},
		{"whiteout, then made again", []item{file(".wh.x", ""), file("x", "1")}, []string{plain("x", "1")}},
		{"made, then whiteout", []item{file("x", "1"), file(".wh.x", "")}, []string{plain("x", "1")}},
		{"directory made, then whiteout", []item{file("d/x", "1"), file(".wh.d", "")}, []string{"d: mode 40755 trusted.overlay.opaque=\"y\"", plain("d/x", "1")}},
		{"whiteout below a whiteout", []item{file(".wh.d", ""), file("d/.wh.x", ""), file("d/.wh..wh..opq", "")}, []string{"d: whiteout"}},
		{"opaque before its directory", []item{file("d/.wh..wh..opq", ""), dir("d", 0o711)}, []string{"d: mode 40711 trusted.overlay.opaque=\"y\""}},
		{"names of aufs", []item{dir(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/1", "x"), file(".wh..wh.aufs", "")},
			[]string{".wh..wh.plnk: mode 40755", plain(".wh..wh.plnk/1", "x"), ".wh.aufs: whiteout", ".wh.plnk: whiteout"}},
		{"hardlink to a whiteout", []item{file(".wh.x", ""), link("y", "x")}, []string{"x: whiteout", "y: whiteout"}},
		{"hardlinks to everything", []item{symlink("s", "t"), link("s2", "s"), of(tar.TypeFifo, "f"), link("f2", "f").with(func(h *tar.Header) { h.Mode = 0o644 }), file("r", "1"), link("d/r2", "./r"), link("r3", "d/r2")},
			[]string{"d: mode 40755", plain("d/r2", "1"), "f2: mode 10644", "f: mode 10644 inode of f", "r3: mode 100644 inode of d/r2", "r: mode 100644 inode of d/r2"}},
		{"first name replaced", []item{file("a", "1"), link("b", "a"), link("c", "b"), file("a", "2"), link("d", "c")},
			[]string{plain("a", "2"), plain("b", "1"), "c: mode 100644 inode of b content \"1\"", "d: mode 100644 inode of b content \"1\""}},
		{"mode of a hardlink counts", []item{file("a", "1"), link("b", "a").with(func(h *tar.Header) { h.Mode = 0o4755 })},
			[]string{"a: mode 104755 content \"1\"", "b: mode 104755 inode of a content \"1\""}},
		{"unset ids", []item{file("x", "1").with(func(h *tar.Header) { h.Uid = 1<<32 - 2 })}, []string{"x: mode 100644 owner 4294967294:0 content \"1\""}},
		{"label", []item{file("x", "1").attr("security.selinux", "a:b:c:s0"), file("y", "").attr("other.x", "1")}, []string{plain("x", "1"), "y: mode 100644 content \"\""}},
		{"attributes of overlay", []item{dir("d", 0o755).attr("trusted.overlay.opaque", "y"), file("d/x", "1").attr("trusted.overlay.metacopy", "")},
			[]string{"d/x: mode 100644 content \"1\" trusted.overlay.metacopy=\"\"", "d: mode 40755 trusted.overlay.opaque=\"y\""}},
		{"global header", []item{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}}, file("x", "1")}, []string{plain("x", "1")}},
		{"longest names", []item{file(strings.Repeat("n", 255), "1"), file(".wh."+strings.Repeat("m", 255), "")},
			[]string{strings.Repeat("m", 255) + ": whiteout", plain(strings.Repeat("n", 255), "1")}},
		{"attributes of a directory listed twice", []item{dir("d", 0o700).attr("user.a", "1"), dir("d", 0o755).attr("user.b", "2")}, []string{"d: mode 40755 user.a=\"1\" user.b=\"2\""}},
		{"device 0:0", []item{of(tar.TypeChar, "x")}, []string{"x: whiteout"}},
		{"raw names", []item{file("\xff\xfe", "1"), symlink("s", "\xff"), file(".wh.\xfd", ""), file(".oci-raw.x", "2")},
			[]string{plain(".oci-raw.x", "2"), "s: mode 120777 target \"\\xff\"", "\xfd: whiteout", plain("\xff\xfe", "1")}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := apply(t, c, fmt.Sprint("rule", i), "", makeTar(t, tt.items...))
			got := shortTree(t, l.TreeDir())
			slices.Sort(tt.want)
			if tt.name == "hardlinks to everything" { // which name is the first is the walk's matter
				if len(got) != 8 {
					t.Errorf("got %d entries: %q", len(got), got)
				}
			} else if !slices.Equal(got, tt.want) {
				t.Errorf("\nwant %q\n got %q", tt.want, got)
			}
			compareCheckout(t, c, l)
		})
	}
}

// TestIngestRefuses checks that bad tars change nothing, and that errors name layer, entry and reason.
func TestIngestRefuses(t *testing.T) {
	needRoot(t)
	home := tmpfs(t) + "/home"
	c := openCatalog(t, home, layers.Options{})
	good := makeTar(t, file("d/good", strings.Repeat("x", 5000)), file("d/large", strings.Repeat("large", 1_000_000)))
	tests := []struct {
		name  string
		tar   []byte
		entry string
		want  string
	}{
		{"garbage", bytes.Repeat([]byte("garbage "), 1000), "", "invalid tar header"},
		{"cut in a small body", good[:3*512+100], "d/good", "unexpected EOF"},
		{"cut in a large body", good[:2_000_000], "d/large", "unexpected EOF"},
		{"cut in a header", good[:1024+100], "", "unexpected EOF"},
		{"root is a file", makeTar(t, file("./", "x").with(func(h *tar.Header) { h.Name = "." })), ".", "must be a directory"},
		{"root is a symlink", makeTar(t, symlink("a/..", "x")), "a/..", "must be a directory"},
		{"below a file", makeTar(t, file("f", "1"), file("f/x", "2")), "f/x", "not a directory"},
		{"below a whiteout", makeTar(t, file(".wh.f", ""), file("f/x", "2")), "f/x", "not a directory"},
		{"loop of symlinks", makeTar(t, symlink("a", "b"), symlink("b", "a"), file("a/x", "")), "a/x", "too many levels"},
		{"hardlink to nothing", makeTar(t, link("a", "b")), "a", `hardlink to "b": no such file`},
		{"hardlink to itself", makeTar(t, file("a", "1"), link("a", "a")), "a", "no such file"},
		{"hardlink to a later entry", makeTar(t, link("a", "b"), file("b", "1")), "a", "no such file"},
		{"hardlink to a directory", makeTar(t, dir("b", 0o755), link("a", "b")), "a", "operation not permitted"},
		{"empty whiteout", makeTar(t, file("d/.wh.", "")), "d/.wh.", "invalid whiteout"},
		{"whiteout of dot", makeTar(t, file("d/.wh..", "")), "d/.wh..", "invalid whiteout"},
		{"whiteout of dot-dot", makeTar(t, file("d/.wh...", "")), "d/.wh...", "invalid whiteout"},
		{"long name", makeTar(t, file(strings.Repeat("n", 256), "1")), strings.Repeat("n", 256), "name too long"},
		{"long name of a parent", makeTar(t, file(strings.Repeat("n", 256)+"/x", "1")), strings.Repeat("n", 256) + "/x", "name too long"},
		{"unknown type", makeTar(t, of(tar.TypeCont, "x")), "x", "unknown type"},
		{"owner", makeTar(t, file("x", "1").with(func(h *tar.Header) { h.Uid = 1 << 32 })), "x", "owner is out of range"},
		{"attribute of a symlink", makeTar(t, symlink("x", "y").attr("user.x", "1")), "x", "user.x"},
		{"list that is none", makeTar(t, file("x", "y").attr("system.posix_acl_access", "1")), "x", "posix_acl_access"},
		{"empty target", makeTar(t, symlink("x", "")), "x", "without a target"},
		{"long target", makeTar(t, symlink("x", strings.Repeat("t", 4096))), "x", "name too long"},
	}
	apply(t, c, "base", "", makeTar(t, file("x", "1")))
	before := storeFiles(t, home)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := c.Stage(context.Background(), bytes.NewReader(tt.tar), layers.StageOptions{ID: "somelayer"})
			if err == nil {
				s.Close()
				t.Fatal("taken")
			}
			var e *layers.EntryError
			if !errors.As(err, &e) || e.Layer != "somelayer" || e.Path != tt.entry || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q (%+v), want entry %q and %q", err, e, tt.entry, tt.want)
			}
			if after := storeFiles(t, home); !slices.Equal(before, after) {
				for _, p := range after {
					if !slices.Contains(before, p) {
						t.Errorf("%s was left", p)
					}
				}
			}
		})
	}
}

// storeFiles lists the names in a home.
func storeFiles(t testing.TB, home string) []string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(home, func(path string, d os.DirEntry, err error) error {
		// Empty prefix directories of objects may stay, and the seal comes and goes.
		if err == nil && !(d.IsDir() && len(d.Name()) == 2) && d.Name() != "seal" {
			names = append(names, path)
		}
		return err
	}))
	return names
}

func TestIngestTimes(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	at := func(i item, sec, nsec int64) item {
		return i.with(func(h *tar.Header) { h.ModTime = time.Unix(sec, nsec) })
	}
	l := apply(t, c, "x", "", makeTar(t,
		at(dir("d", 0o755), 1, 999999999), at(file("d/x", ""), 5, 1), at(file("old", "1"), -5, 0), at(symlink("olds", "1"), -5, 500),
		at(file("far", "1"), 1e10, 0), at(of(tar.TypeFifo, "f"), 7, 7), file("implied/x", "1")))
	want := map[string]unix.Timespec{
		"d": {Sec: 1, Nsec: 999999999}, "d/x": {Sec: 5, Nsec: 1}, "old": {}, "olds": {Sec: -5, Nsec: 500}, "far": {}, "f": {Sec: 7, Nsec: 7},
		"implied": {}, ".": {},
	}
	for p, w := range want {
		var st unix.Stat_t
		must(t, unix.Lstat(l.TreeDir()+"/"+p, &st))
		if st.Mtim != w {
			t.Errorf("%s: time %v, want %v", p, st.Mtim, w)
		}
	}
}

// TestIngestTimesOfMovedNames has a directory whose name leads to another one when the tar ends: overlay's extraction gives that one the time.
func TestIngestTimesOfMovedNames(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	data := makeTar(t, dir("a", 0o755).with(func(h *tar.Header) { h.ModTime = time.Unix(1, 0) }),
		dir("c/c/a", 0o755).with(func(h *tar.Header) { h.ModTime = time.Unix(2, 0) }), symlink("c", "."))
	compareUnpack(t, c, "x", data)
	if st := statOf(t, c.Home()+"/layers/x/tree/a"); st.Mtim.Sec != 2 {
		t.Errorf("time %v", st.Mtim)
	}
}
