package differential_test

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

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

var at = time.Unix(1700000000, 5)

func regular(name, body string) differential.Entry {
	return differential.Entry{Name: name, Type: tar.TypeReg, Mode: 0o644, Body: []byte(body), MTime: at}
}

func directory(name string) differential.Entry {
	return differential.Entry{Name: name, Type: tar.TypeDir, Mode: 0o755, MTime: at}
}

func with(e differential.Entry, xattrs ...string) differential.Entry {
	e.Xattrs = map[string]string{}
	for i := 0; i < len(xattrs); i += 2 {
		e.Xattrs[xattrs[i]] = xattrs[i+1]
	}
	return e
}

// chains are cases that a generator meets too rarely.
func chains() map[string]differential.Chain {
	farm := differential.Layer{directory("bin/"), regular("bin/busybox", "busybox")}
	for i := range 400 {
		farm = append(farm, differential.Entry{Name: fmt.Sprintf("bin/applet%d", i), Type: tar.TypeLink, Link: "bin/busybox", Mode: 0o644, MTime: at})
	}
	many := differential.Layer{directory("many/")}
	for i := range 110 { // in one block of the directory: how many ext4 needs for more depends on the order in which names come
		many = append(many, regular(fmt.Sprintf("many/equal%d", i), "all equal"), regular(fmt.Sprintf("many/empty%d", i), ""))
	}
	deep := differential.Chain{{regular("x", "equal")}}
	for i := range 7 {
		deep = append(deep, differential.Layer{regular(fmt.Sprintf("x%d", i), "equal"), regular("x", "equal")})
	}
	caps := with(regular("bin/ping", "ping"), "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	plain := differential.Entry{Name: "bin/ping6", Type: tar.TypeLink, Link: "bin/ping", Mode: 0o644, MTime: at}
	aclDir := with(directory("acl/"), "system.posix_acl_default", defaultACL)
	return map[string]differential.Chain{
		"busybox":                     {farm},
		"equal files":                 {many},
		"the same path, equal again":  deep,
		"the same layer thrice":       {many, many, many},
		"a link entry drops nothing":  {{caps, plain}},
		"links of links":              {{regular("a", "x"), {Name: "b", Type: tar.TypeLink, Link: "a", Mode: 0o644, MTime: at}, {Name: "c", Type: tar.TypeLink, Link: "b", Mode: 0o644, MTime: at}}},
		"default ACL above new files": {{aclDir, regular("acl/file", "x"), directory("acl/sub/"), regular("acl/sub/file", "x")}},
		"default ACL after its files": {{regular("acl/file", "x"), aclDir}},
		"empty layers":                {{}, {}, {directory("./")}, {}},
		"root's own metadata":         {{{Name: "./", Type: tar.TypeDir, Mode: 0o1701, UID: 5, GID: 6, MTime: at}}, {regular("a", "")}, {{Name: "./", Type: tar.TypeDir, Mode: 0o711, MTime: at}}},
	}
}

const defaultACL = "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xe8\x03\x00\x00" +
	"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

func TestDirectedChains(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		p := opened(t, dir)
		for name, chain := range chains() {
			seed := uint64(len(name)) // odd and even: in one step, and staged
			diffs, err := p.Run(seed, chain)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(diffs) > 0 {
				t.Errorf("%s:\n%s", name, format(diffs))
			}
		}
	})
}

// TestA08OverlayAttributesOfAnImage: what overlayfs acts on in its own layers is,
// in an image, nothing but an attribute.
func TestA08OverlayAttributesOfAnImage(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("on overlay these attributes act on the mount")
	}
	t.Parallel()
	redirect := with(regular("stolen", ""), "trusted.overlay.metacopy", "", "trusted.overlay.redirect", "/secret/key")
	acting := []differential.Entry{
		with(directory("opaque/"), "trusted.overlay.opaque", "y"),
		with(directory("moved/"), "trusted.overlay.redirect", "/secret"),
		with(directory("white/"), "trusted.overlay.opaque", "x"),
		with(regular("white/gone", ""), "trusted.overlay.whiteout", "y"),
		with(regular("origin", "x"), "trusted.overlay.origin", "junk", "trusted.overlay.nlink", "U+5", "trusted.overlay.upper", "junk"),
		with(directory("impure/"), "trusted.overlay.impure", "y"),
		with(directory("escaped/"), "trusted.overlay.overlay.opaque", "y"),
		redirect,
	}
	lower := differential.Layer{
		directory("opaque/"), regular("opaque/below", "below"), directory("moved/"), regular("moved/below", "below"),
		directory("white/"), regular("white/gone", "still here"), directory("secret/"), regular("secret/key", "key"), directory("escaped/"), regular("escaped/below", "below"),
	}
	p := opened(t, testfs.Mount(t, "ext4"))
	apply(t, p.Ours, "lower", "", lower)
	apply(t, p.Ours, "upper", "lower", acting)
	tree, err := p.Ours.Tree("upper", "ro")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"opaque/below", "moved/below", "escaped/below"} {
		if tree.At(name) == nil {
			t.Errorf("%s is hidden: an attribute of the image acted on the mount", name)
		}
	}
	if tree.At("moved/key") != nil {
		t.Error("a redirect of the image led to another directory")
	}
	for _, e := range acting {
		n := tree.At(filepath.Clean(e.Name))
		if n == nil {
			t.Errorf("%s is hidden", e.Name)
			continue
		}
		if n.Type() == unix.S_IFREG && n.Size != int64(len(e.Body)) {
			t.Errorf("%s has %d bytes, not its own %d", e.Name, n.Size, len(e.Body))
		}
		for name, value := range e.Xattrs {
			if got, ok := n.Xattrs[name]; !ok || got != value {
				t.Errorf("%s: attribute %s is %q (%v) in the mount, want %q", e.Name, name, got, ok, value)
			}
		}
	}
}

func apply(t *testing.T, s *differential.Side, id, parent string, l differential.Layer) {
	t.Helper()
	b, err := l.Tar()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(id, parent, b, true); err != nil {
		t.Fatalf("apply %s: %v", id, err)
	}
}

// TestPathsBeyondTheLimit: a layer may hold paths that no system call takes in
// one piece. Overlay refuses them; we show them.
func TestPathsBeyondTheLimit(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay refuses such layers")
	}
	t.Parallel()
	testfs.Each(t, func(t *testing.T, dir string) {
		p := opened(t, dir)
		long := strings.Repeat(strings.Repeat("n", 250)+"/", 20)
		l := differential.Layer{
			regular(long+"file", "at the end"), directory(long + "dir/"), regular(long+"equal", "at the end"), regular("\xff\xfe/\xfd/file", "not UTF-8"),
			{Name: long + "link", Type: tar.TypeLink, Link: long + "file", Mode: 0o644, MTime: at},
			{Name: long + "symlink", Type: tar.TypeSymlink, Link: strings.Repeat("t", 1000), Mode: 0o777, MTime: at},
			{Name: long + "fifo", Type: tar.TypeFifo, Mode: 0o600, MTime: at},
		}
		apply(t, p.Ours, "base", "", l)
		apply(t, p.Ours, "top", "base", differential.Layer{regular(long+".wh.dir", ""), regular(long+"more", "at the end")})
		tree, err := p.Ours.Tree("top", "ro")
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"file": true, "link": true, "symlink": true, "fifo": true, "more": true, "dir": false} {
			if got := tree.At(long+name) != nil; got != want {
				t.Errorf(".../%s is there: %v, want %v", name, got, want)
			}
		}
		if n := tree.At(long + "file"); n != nil && (len(tree.Names(n)) != 2 || n.Sec != at.Unix() || n.Size != 10) {
			t.Errorf("the file at the end is %+v", n)
		}
		names := []string{long + "file", long + "equal", "\xff\xfe/\xfd/file"}
		bodies, err := p.Ours.Content("base", names)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bodies[names[0]], []byte("at the end")) || !bytes.Equal(bodies[names[2]], []byte("not UTF-8")) {
			t.Errorf("files by their names: %q", bodies)
		}
		for _, id := range []string{"top", "base"} {
			if err := p.Ours.Driver.Remove(id); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestB11MoreRootsThanLinks: ext4 gives an inode 65,000 names. When one is used up,
// the next roots get another inode, and see nothing of it.
func TestB11MoreRootsThanLinks(t *testing.T) {
	t.Parallel()
	dir := testfs.MountOptions(t, "ext4", testfs.Options{Mkfs: []string{"-N", "131072"}})
	p := opened(t, dir)
	p.Keep = 100
	chain := differential.Chain{{directory("usr/"), regular("usr/shared", strings.Repeat("used by all ", 100))}}
	roots := filepath.Join(dir, "roots")
	if err := os.Mkdir(roots, 0o755); err != nil {
		t.Fatal(err)
	}
	made := 0
	for round := range 12 {
		p.Tamper = func(ids []string) error {
			if round%4 != 1 {
				return nil
			}
			// So many roots as fit, each of which has the file.
			for ; ; made++ {
				err := os.Link(filepath.Join(p.Ours.TreeDir(ids[0]), "usr/shared"), filepath.Join(roots, fmt.Sprint(made)))
				if errors.Is(err, unix.EMLINK) {
					return nil
				}
				if err != nil {
					return err
				}
			}
		}
		diffs, err := p.Run(uint64(round), chain)
		if err != nil || len(diffs) > 0 {
			t.Fatalf("round %d, after %d links: %v\n%s", round, made, err, format(diffs))
		}
	}
	if made < 64000 || *ours != "overlay" && made < 120000 {
		t.Errorf("only %d links were made: later roots did not share", made)
	}
}
