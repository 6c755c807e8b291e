package layers_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// inodesBelow maps the inodes of all that is no directory below a path to their blocks, and the path that they were found at.
func inodesBelow(t testing.TB, dir string) (blocks map[uint64]int64, at map[uint64]string) {
	t.Helper()
	blocks, at = map[uint64]int64{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		blocks[st.Ino], at[st.Ino] = st.Blocks*512, p
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return blocks, at
}

// sound fails for whatever a check and a fsck of a home find.
func sound(t testing.TB, c *layers.Catalog) {
	t.Helper()
	for _, f := range checkAll(t, c) {
		t.Error(f)
	}
	if err := c.Repo().Fsck(context.Background(), store.FsckOptions{}, func(f store.Finding) { t.Error(f) }); err != nil {
		t.Fatal(err)
	}
}

// TestCloneRandom clones chains of layers of random tars, and compares each with its original, attribute by attribute.
func TestCloneRandom(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		from, err := layers.OpenCatalog(dir+"/from", layers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		to := openCatalog(t, dir+"/to", layers.Options{})
		m := tarMaker{rand.New(rand.NewPCG(11, 3))}
		parent := ""
		var ids []string
		for i := range 24 {
			id := fmt.Sprintf("l%d", i)
			applyRandom(t, from, m, id, parent)
			if parent = id; i%4 == 3 {
				parent = ""
			}
			ids = append(ids, id)
		}
		for _, id := range ids {
			l, err := from.Layer(id)
			if err != nil {
				t.Fatal(err)
			}
			if err := layers.Clone(context.Background(), to, l, layers.CloneOptions{}); err != nil {
				t.Fatal(err)
			}
			got, err := to.Layer(id)
			if err != nil {
				t.Fatal(err)
			}
			if got.Commit != l.Commit || got.Size != l.Size || got.Entries != l.Entries || fmt.Sprint(got.Ancestors) != fmt.Sprint(l.Ancestors) {
				t.Errorf("the clone is %+v of %+v", got, l)
			}
			// The clone alone is checked against the commit; that the commits are one was seen. What is shared with the repository there is
			// shared here.
			_, there := inodesBelow(t, l.TreeDir())
			_, here := inodesBelow(t, got.TreeDir())
			_, objects := inodesBelow(t, filepath.Join(from.Repo().Path(), "objects"))
			for ino, p := range there {
				if _, object := objects[ino]; object && here[ino] == "" {
					t.Errorf("%s is not shared", p)
				}
			}
		}
		sound(t, to)
		sound(t, from)
		// It stands by itself.
		if err := os.RemoveAll(dir + "/from"); err != nil {
			t.Fatal(err)
		}
		sound(t, to)
		for _, id := range ids {
			cleanup, err := to.Remove(id)
			if err == nil {
				err = cleanup()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, below := range []string{"layers", "repo/objects", "repo/extensions/ostree-storage/lanes"} {
			if left, _ := inodesBelow(t, filepath.Join(dir, "to", below)); len(left) > 0 {
				t.Errorf("after everything is removed there are %d inodes in %s", len(left), below)
			}
		}
	})
}

// TestCloneOntoOtherInodes clones a layer onto a parent whose tree has other inodes than the original's parent: none of the chain's may
// appear twice.
func TestCloneOntoOtherInodes(t *testing.T) {
	at := testfs.Mount(t, "ext4")
	base := makeTar(t, dir("usr", 0o755), file("usr/a", "equal"))
	child := makeTar(t, dir("usr", 0o755), file("usr/b", "equal"), file("usr/c", "equal"))
	to := openCatalog(t, at+"/to", layers.Options{})
	from := openCatalog(t, at+"/from", layers.Options{Sources: []*layers.Source{to.Source()}})
	apply(t, from, "child0", "", child) // so that its inodes are the first that are found
	apply(t, from, "base", "", base)
	l := apply(t, from, "child", "base", child)
	first, err := from.Layer("child0")
	if err != nil {
		t.Fatal(err)
	}
	if err := layers.Clone(context.Background(), to, first, layers.CloneOptions{}); err != nil {
		t.Fatal(err)
	}
	parent := apply(t, to, "base", "", base)
	if err := layers.Clone(context.Background(), to, l, layers.CloneOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := to.Layer("child")
	if err != nil {
		t.Fatal(err)
	}
	_, a := inodesBelow(t, parent.TreeDir())
	_, b := inodesBelow(t, got.TreeDir())
	if len(a) != 1 || len(b) != 2 {
		t.Errorf("the trees have %v and %v", a, b)
	}
	for ino, p := range a {
		if b[ino] != "" {
			t.Errorf("%s and %s are one inode", p, b[ino])
		}
	}
	sound(t, to)
}

// TestCloneFindsDamage changes a byte of a file behind everybody's back.
func TestCloneFindsDamage(t *testing.T) {
	at := testfs.Mount(t, "ext4")
	from, to := openCatalog(t, at+"/from", layers.Options{}), openCatalog(t, at+"/to", layers.Options{})
	for _, path := range []string{"usr/tool", "etc/conf"} {
		l := apply(t, from, "l", "", makeTar(t, dir("usr", 0o755), file("usr/tool", "a tool"), dir("etc", 0o755), file("etc/conf", "conf")))
		p := filepath.Join(l.TreeDir(), path)
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if err := errors.Join(os.WriteFile(p, b, 0), os.Chtimes(p, st.ModTime(), st.ModTime())); err != nil {
			t.Fatal(err)
		}
		err = layers.Clone(context.Background(), to, l, layers.CloneOptions{})
		var corrupt *store.CorruptError
		// A file of its own comes from its object, which is good.
		if path == "usr/tool" && !errors.As(err, &corrupt) || path == "etc/conf" && err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if path == "usr/tool" && to.Exists("l") {
			t.Error("the layer is there")
		}
		if err := layers.Clone(context.Background(), to, l, layers.CloneOptions{Unread: true}); err != nil {
			t.Errorf("%s: unread: %v", path, err)
		}
		for _, c := range []*layers.Catalog{from, to} {
			cleanup, err := c.Remove("l")
			if err := errors.Join(err, cleanup()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCloneToOtherFilesystem copies where nothing can be linked.
func TestCloneToOtherFilesystem(t *testing.T) {
	from := openCatalog(t, testfs.Mount(t, "ext4")+"/from", layers.Options{})
	to := openCatalog(t, testfs.Mount(t, "ext4")+"/to", layers.Options{})
	xfs := openCatalog(t, testfs.Mount(t, "xfs")+"/to", layers.Options{})
	m := tarMaker{rand.New(rand.NewPCG(5, 8))}
	parent := ""
	for i := range 6 {
		id := fmt.Sprintf("l%d", i)
		applyRandom(t, from, m, id, parent)
		l, err := from.Layer(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := layers.Clone(context.Background(), to, l, layers.CloneOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := layers.Clone(context.Background(), xfs, l, layers.CloneOptions{}); !errors.Is(err, layers.ErrUnsupported) {
			t.Errorf("to another kind of filesystem: %v", err)
		}
		parent = id
	}
	sound(t, to)
}
