package store_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

func TestRefs(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	l := stage(t, r, store.StageOptions{})
	l.put("a", regular(0o644, 1), "a")
	c, _ := l.publish("layer/one", home+"/one")
	old := time.Unix(1000, 0)
	if err := os.Chtimes(r.Path(), old, old); err != nil {
		t.Fatal(err)
	}
	if err := r.SetRef("a/b_c/x.y-z", c); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(r.Path()); err != nil || time.Since(fi.ModTime()) > time.Minute {
		t.Errorf("the repository's time was not set: %v, %v", fi.ModTime(), err)
	}
	if err := r.MoveRef("a/b_c/x.y-z", "moved/to/here"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Ref("a/b_c/x.y-z"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
	if err := os.Symlink("to/here", r.Path()+"/refs/heads/moved/alias"); err != nil {
		t.Fatal(err)
	}
	refs, err := r.Refs("moved")
	if err != nil || len(refs) != 2 || refs["moved/alias"] != c || refs["moved/to/here"] != c {
		t.Errorf("refs: %v, %v", refs, err)
	}
	if refs, err := r.Refs(""); err != nil || len(refs) != 3 {
		t.Errorf("all refs: %v, %v", refs, err)
	}
	if err := r.SetRef("x", object.Checksum{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a ref to nothing: %v", err)
	}
	if err := r.SetRef("moved/to", c); err == nil {
		t.Error("a ref in the place of a directory")
	}
	for range 2 {
		if err := r.DeleteRef("moved/to/here"); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(r.Path() + "/refs/heads/moved/alias"); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/etc/passwd", "../../../../../etc/passwd", "../remotes/x", "loop"} {
		if err := os.Symlink(target, r.Path()+"/refs/heads/loop"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Ref("loop"); err == nil {
			t.Errorf("followed an alias to %s", target)
		}
		if err := os.Remove(r.Path() + "/refs/heads/loop"); err != nil {
			t.Fatal(err)
		}
	}
}

var badRefs = []string{
	"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "-a", ".a", "a/.b", "a b", "a\x00", "ä", "a:b", "a@b", strings.Repeat("ab", 32),
	strings.Repeat("a", 256), strings.Repeat("a/", 1100) + "a",
}

func TestBadRefNames(t *testing.T) {
	r := storetest.New(t)
	for _, name := range badRefs {
		if _, err := r.Ref(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Ref(%q): %v", name, err)
		}
		if err := r.DeleteRef(name); err == nil {
			t.Errorf("DeleteRef(%q) did not fail", name)
		}
		if err := r.MoveRef("a", name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("MoveRef(%q): %v", name, err)
		}
	}
}

// FuzzRefName sees that no name leads out of refs/heads.
func FuzzRefName(f *testing.F) {
	for _, name := range badRefs {
		f.Add(name)
	}
	f.Add("layer/a_2F_b")
	home := f.TempDir()
	r, err := store.Init(home+"/repo", store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	f.Fuzz(func(t *testing.T, name string) {
		_, err := r.Ref(name)
		if err == nil {
			t.Errorf("%q is a ref", name)
		}
		if errors.Is(err, fs.ErrNotExist) && (strings.Contains(name, "..") && strings.Contains(name, "/..") || strings.HasPrefix(name, "/")) {
			t.Errorf("%q was looked for", name)
		}
	})
}
