package store_test

import (
	"bytes"
	"context"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A layer is a small tree in a stage.
type layer struct {
	t     testing.TB
	repo  *store.Repo
	stage *store.Stage
	tree  *os.File
	files []placedFile
	list  object.DirTree
}

type placedFile struct {
	name string
	p    store.Placed
}

func stage(t testing.TB, r *store.Repo, o store.StageOptions) *layer {
	t.Helper()
	s, err := r.NewStage(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := os.Mkdir(s.Path()+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(s.Path() + "/tree")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &layer{t: t, repo: r, stage: s, tree: d}
}

func regular(mode uint32, mtime int64) store.File {
	return store.File{
		Header: object.FileHeader{Mode: unix.S_IFREG | mode},
		MTime:  store.Time{Sec: mtime, Nsec: 123456789},
	}
}

func (l *layer) put(name string, f store.File, body string) store.Placed {
	l.t.Helper()
	p, err := l.stage.PutFile(int(l.tree.Fd()), name, f, []byte(body))
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(name, p)
	return p
}

func (l *layer) stream(name string, f store.File, body []byte) store.Placed {
	l.t.Helper()
	p, err := l.stage.PutStream(int(l.tree.Fd()), name, f, int64(len(body)), bytes.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(name, p)
	return p
}

func (l *layer) add(name string, p store.Placed) {
	l.files = append(l.files, placedFile{name, p})
	l.list.Files = append(l.list.Files, object.TreeFile{Name: name, Checksum: p.Checksum})
}

// commit puts the tree's metadata and returns the commit. Files must have been put in order of their names.
func (l *layer) commit() object.Checksum {
	l.t.Helper()
	tree, err := l.stage.PutDirTree(&l.list)
	if err != nil {
		l.t.Fatal(err)
	}
	meta, err := l.stage.PutDirMeta(&object.DirMeta{Mode: unix.S_IFDIR | 0o755})
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := l.stage.PutCommit(&object.Commit{Tree: tree, Meta: meta})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *layer) links(link func(int, string, store.Placed) error) error {
	for _, f := range l.files {
		if err := link(int(l.tree.Fd()), f.name, f.p); err != nil {
			return err
		}
	}
	return nil
}

// publish publishes the layer as ref, moves its tree to dir and writes its inode list beside it.
func (l *layer) publish(ref, dir string) (object.Checksum, *store.Inodes) {
	l.t.Helper()
	c := l.commit()
	if err := l.stage.Publish(context.Background(), ref, c, l.links); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(l.stage.Path()+"/tree", dir+"/tree"); err != nil {
		l.t.Fatal(err)
	}
	if err := l.stage.WriteInodes(dir+"/inodes", l.tree); err != nil {
		l.t.Fatal(err)
	}
	if err := l.stage.Close(); err != nil {
		l.t.Fatal(err)
	}
	inodes, err := store.OpenInodes(dir+"/inodes", dir+"/tree")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { inodes.Close() })
	return c, inodes
}

func ino(t testing.TB, path string) uint64 {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

func TestSmoke(t *testing.T) {
	home := t.TempDir()
	r, err := store.Init(home+"/repo", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := stage(t, r, store.StageOptions{})
	a := l.put("a", regular(0o644, 1000), "hello")
	b := l.put("b", regular(0o644, 1000), "hello")
	c := l.put("c", regular(0o644, 1001), "hello")
	l.stream("d", regular(0o755, 1001), make([]byte, 3<<20))
	l.put("e", regular(0o600, 1001), "")
	l.put("l", store.File{Header: object.FileHeader{Mode: unix.S_IFLNK | 0o777, Target: "a"}}, "")
	if a.Checksum != b.Checksum || a.Ino == b.Ino || a.Ino == c.Ino || b.Ino == c.Ino {
		t.Errorf("%+v\n%+v\n%+v", a, b, c)
	}
	sum, inodes := l.publish("layer/one", home+"/one")
	l = stage(t, r, store.StageOptions{})
	l.put("a", regular(0o644, 1000), "hello")
	l.put("b", regular(0o644, 1000), "hello")
	l.put("c", regular(0o644, 1001), "hello")
	l.put("n", regular(0o644, 1001), "new")
	l.publish("layer/two", home+"/two")
	l = stage(t, r, store.StageOptions{Ancestors: []*store.Inodes{inodes}})
	l.put("a", regular(0o644, 1000), "hello")
	l.publish("layer/three", home+"/three")
	for _, name := range []string{"a", "b", "c"} {
		if x, y := ino(t, home+"/one/tree/"+name), ino(t, home+"/two/tree/"+name); x != y {
			t.Errorf("%s: inode %d and %d", name, x, y)
		}
	}
	if ino(t, home+"/three/tree/a") == a.Ino || ino(t, home+"/three/tree/a") == b.Ino {
		t.Error("the child uses an inode of its parent")
	}
	if got, err := r.Ref("layer/one"); got != sum || err != nil {
		t.Error(got, err)
	}
}
