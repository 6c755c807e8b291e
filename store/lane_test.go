package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// TestLanes puts the same file into chains of layers, and looks at who shares an inode with whom.
func TestLanes(t *testing.T) {
	testfs.Each(t, func(t *testing.T, home string) {
		r := storetest.At(t, home+"/repo", store.Options{})
		add := func(id string, o store.StageOptions) *store.Inodes {
			l := stage(t, r, o)
			l.put("a", regular(0o644, 1000), "hello")
			l.put("b", regular(0o644, 1000), "hello")
			l.put("c", regular(0o644, 1001), "hello")
			l.put("d", store.File{Header: object.FileHeader{Mode: unix.S_IFLNK | 0o777, Target: "a"}}, "")
			l.put("e", regular(0o644, 1000), "")
			_, inodes := l.publish("layer/"+id, home+"/"+id)
			return inodes
		}
		base := add("base", store.StageOptions{})
		other := add("other", store.StageOptions{})
		child := add("child", store.StageOptions{Ancestors: []*store.Inodes{base}})
		sibling := add("sibling", store.StageOptions{Ancestors: []*store.Inodes{base}})
		deep := []*store.Inodes{child, base, other, base, other, base}
		add("grandchild", store.StageOptions{Ancestors: deep})
		at := func(id, name string) uint64 { return ino(t, home+"/"+id+"/tree/"+name) }
		for _, name := range []string{"a", "b", "c", "d"} {
			if at("base", name) != at("other", name) {
				t.Errorf("%s: two roots do not share", name)
			}
			if at("child", name) != at("sibling", name) {
				t.Errorf("%s: two children do not share", name)
			}
			if !base.Contains(at("base", name)) || !sibling.Contains(at("child", name)) {
				t.Errorf("%s: not in the list of inodes", name)
			}
		}
		seen := map[uint64]string{}
		for _, id := range []string{"base", "child", "grandchild"} {
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				if was, ok := seen[at(id, name)]; ok {
					t.Errorf("%s/%s and %s are one inode", id, name, was)
				}
				seen[at(id, name)] = id + "/" + name
			}
		}
		if at("base", "e") == at("other", "e") {
			t.Error("empty files share an inode")
		}
		if base.Len() != 4 {
			t.Errorf("%d inodes in the list", base.Len())
		}
	})
}

func TestSharedTimes(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	for i, id := range []string{"one", "two"} {
		l := stage(t, r, store.StageOptions{SharedTimes: true})
		l.put("a", regular(0o644, int64(1000+i)), "hello")
		l.put("b", regular(0o644, int64(2000+i)), "hello")
		l.publish("layer/"+id, home+"/"+id)
	}
	for _, name := range []string{"a", "b"} {
		if ino(t, home+"/one/tree/"+name) != ino(t, home+"/two/tree/"+name) {
			t.Errorf("%s: not shared", name)
		}
	}
	if ino(t, home+"/one/tree/a") == ino(t, home+"/one/tree/b") {
		t.Error("two files of one root share an inode")
	}
	if lanes, _ := filepath.Glob(r.Path() + "/extensions/ostree-storage/lanes/*/*.s.1"); len(lanes) != 1 {
		t.Errorf("lanes: %q", lanes)
	}
}

// TestPrivate wants files of their own with an exact link count, and their objects all the same.
func TestPrivate(t *testing.T) {
	testfs.Each(t, func(t *testing.T, home string) {
		r := storetest.At(t, home+"/repo", store.Options{})
		f := regular(0o644, 1000)
		f.Private = true
		raw := f
		raw.Inode = []object.Xattr{{Name: "trusted.overlay.overlay.opaque", Value: []byte("y")}}
		raw.Header.Xattrs = []object.Xattr{{Name: "trusted.overlay.opaque", Value: []byte("y")}}
		for _, id := range []string{"one", "two"} {
			l := stage(t, r, store.StageOptions{})
			p := l.put("a", f, "private")
			l.put("b", f, "private")
			l.put("c", raw, "private")
			l.stream("d", f, make([]byte, 2<<20))
			if p.Mode != store.Single {
				t.Errorf("%+v", p)
			}
			_, inodes := l.publish("layer/"+id, home+"/"+id)
			if inodes.Len() != 0 {
				t.Errorf("%d inodes are listed", inodes.Len())
			}
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			var st syscall.Stat_t
			if err := syscall.Lstat(home+"/two/tree/"+name, &st); err != nil || st.Nlink != 1 || st.Mtim.Sec != 1000 {
				t.Errorf("%s: %d links, time %d, %v", name, st.Nlink, st.Mtim.Sec, err)
			}
		}
		b := make([]byte, 8)
		if n, err := unix.Lgetxattr(home+"/two/tree/c", "trusted.overlay.overlay.opaque", b); err != nil || string(b[:n]) != "y" {
			t.Errorf("the inode's own attribute: %q, %v", b[:n], err)
		}
		if _, err := unix.Lgetxattr(home+"/two/tree/c", "trusted.overlay.opaque", b); err != unix.ENODATA {
			t.Errorf("the object's attribute on the inode: %v", err)
		}
	})
}

// fill gives an inode links until only n are left.
func fill(t *testing.T, path, dir string, limit, n int) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := int(fi.Sys().(*syscall.Stat_t).Nlink); i < limit-n; i++ {
		if err := os.Link(path, fmt.Sprintf("%s/%d", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestB11LinkLimit fills an object's inode, and then its successor's, as 65,000 roots would. Nobody may notice.
func TestB11LinkLimit(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	r := storetest.At(t, home+"/repo", store.Options{})
	apply := func(id string) store.Placed {
		l := stage(t, r, store.StageOptions{})
		p := l.put("a", regular(0o644, 1000), "hello")
		l.publish("layer/"+id, home+"/"+id)
		return p
	}
	p := apply("one")
	path := r.Path() + "/objects/" + object.Name{Checksum: p.Checksum, Type: object.TypeFile}.LoosePath()
	object := ino(t, path)
	fill(t, path, home+"/links1", 65_000, 5)
	second := apply("two")
	if second.Mode != store.Created || ino(t, path) != object {
		t.Errorf("%+v; the object is inode %d and was %d", second, ino(t, path), object)
	}
	if p := apply("three"); p.Mode != store.Linked || ino(t, home+"/three/tree/a") != ino(t, home+"/two/tree/a") {
		t.Errorf("the successor is not shared: %+v", p)
	}
	fill(t, home+"/two/tree/a", home+"/links2", 65_000, 0)
	fourth := apply("four")
	if fourth.Mode != store.Created || ino(t, home+"/four/tree/a") == ino(t, home+"/two/tree/a") {
		t.Errorf("no second successor: %+v", fourth)
	}
	if p := apply("five"); p.Mode != store.Linked || ino(t, home+"/five/tree/a") != ino(t, home+"/four/tree/a") {
		t.Errorf("the second successor is not shared: %+v", p)
	}
	ostree(t, "fsck", "--repo", r.Path())
}

// TestRace has two stages make the same new file at once: the second to publish gives way to the first, or makes a lane.
func TestRace(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	first, second := stage(t, r, store.StageOptions{}), stage(t, r, store.StageOptions{})
	for _, l := range []*layer{first, second} {
		l.put("a", regular(0o644, 1000), "same")
		l.put("b", regular(0o644, 1000), "same")
		l.put("g", regular(0o644, 1000), "group")
		if err := os.Link(l.stage.Path()+"/tree/g", l.stage.Path()+"/tree/g2"); err != nil {
			t.Fatal(err)
		}
		old := time.Unix(500, 42)
		if err := os.Chtimes(l.stage.Path()+"/tree", old, old); err != nil {
			t.Fatal(err)
		}
	}
	third := stage(t, r, store.StageOptions{})
	third.put("a", regular(0o644, 3000), "same")
	first.publish("layer/first", home+"/first")
	_, inodes := second.publish("layer/second", home+"/second")
	third.publish("layer/third", home+"/third")
	for _, name := range []string{"a", "b"} {
		if ino(t, home+"/first/tree/"+name) != ino(t, home+"/second/tree/"+name) {
			t.Errorf("%s: two inodes", name)
		}
		if !inodes.Contains(ino(t, home+"/second/tree/"+name)) {
			t.Errorf("%s: not listed", name)
		}
	}
	if ino(t, home+"/second/tree/g") != ino(t, home+"/second/tree/g2") {
		t.Error("a hardlink group was torn apart")
	}
	if fi, err := os.Stat(home + "/second/tree"); err != nil || !fi.ModTime().Equal(time.Unix(500, 42)) {
		t.Errorf("the directory's time is %v, %v", fi.ModTime(), err)
	}
	if ino(t, home+"/third/tree/a") == ino(t, home+"/first/tree/a") {
		t.Error("files with different times share an inode")
	}
}

// TestB09PrunedMeanwhile deletes what a stage counts on before it is published.
func TestB09PrunedMeanwhile(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	private := regular(0o600, 1)
	private.Private = true
	put := func(l *layer) *layer {
		l.put("a", regular(0o644, 1000), "hello")
		l.put("b", regular(0o644, 1000), "hello")
		l.put("c", regular(0o644, 1001), "hello")
		l.put("d", private, "private")
		return l
	}
	put(stage(t, r, store.StageOptions{})).publish("layer/one", home+"/one")
	time.Sleep(100 * time.Millisecond)
	l := put(stage(t, r, store.StageOptions{}))
	remove(t, r, home, "one")
	if n, _ := filepath.Glob(r.Path() + "/objects/*/*"); len(n) != 0 {
		t.Errorf("left: %q", n)
	}
	l.publish("layer/two", home+"/two")
	ostree(t, "fsck", "--repo", r.Path())
	l = put(stage(t, r, store.StageOptions{}))
	l.publish("layer/three", home+"/three")
	for _, name := range []string{"a", "b", "c"} {
		if ino(t, home+"/two/tree/"+name) != ino(t, home+"/three/tree/"+name) {
			t.Errorf("%s: not shared", name)
		}
	}
}

func remove(t *testing.T, r *store.Repo, home, id string) {
	t.Helper()
	d, err := os.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	trash, err := r.MoveToTrash(d, id, "layer/"+id)
	if err != nil {
		t.Fatal(err)
	}
	if err := trash.Remove(); err != nil {
		t.Fatal(err)
	}
}

// TestB07Damaged never links an object that does not look like its header.
func TestB07Damaged(t *testing.T) {
	home := t.TempDir()
	r, err := store.Init(home+"/repo", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := stage(t, r, store.StageOptions{})
	p := l.put("a", regular(0o644, 1000), "hello")
	l.publish("layer/one", home+"/one")
	path := r.Path() + "/objects/" + object.Name{Checksum: p.Checksum, Type: object.TypeFile}.LoosePath()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(path, 3), os.Chtimes(path, fi.ModTime(), fi.ModTime())); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"two", "three"} {
		l = stage(t, r, store.StageOptions{})
		l.put("a", regular(0o644, 1000), "hello")
		l.publish("layer/"+id, home+"/"+id)
		if b, err := os.ReadFile(home + "/" + id + "/tree/a"); string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if ino(t, home+"/two/tree/a") != ino(t, home+"/three/tree/a") {
		t.Error("the good copy is not shared")
	}
	var found []store.Finding
	if err := r.Fsck(context.Background(), store.FsckOptions{}, func(f store.Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Kind != store.Corrupt || len(found[0].Refs) != 3 {
		t.Errorf("findings: %v", found)
	}
}

func TestPlaceErrors(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	l := stage(t, r, store.StageOptions{})
	l.put("a", regular(0o644, 1000), "hello")
	l.publish("layer/one", home+"/one")
	l = stage(t, r, store.StageOptions{})
	other := testfs.Mount(t, "ext4")
	dir, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, err = l.stage.PutFile(int(dir.Fd()), "a", regular(0o644, 1000), []byte("hello"))
	if !errors.Is(err, store.ErrOtherMount) || !errors.Is(err, unix.EXDEV) {
		t.Errorf("another mount: %v", err)
	}
	l.put("x", regular(0o644, 1), "x")
	for _, f := range []store.File{regular(0o644, 1), {Header: object.FileHeader{Mode: unix.S_IFLNK | 0o777, Target: "y"}}} {
		if _, err := l.stage.PutFile(int(l.tree.Fd()), "x", f, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("name taken: %v", err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "../x", "/x"} {
		if _, err := l.stage.PutFile(int(l.tree.Fd()), name, regular(0o644, 1), []byte("n")); !errors.Is(err, unix.EINVAL) {
			t.Errorf("name %q: %v", name, err)
		}
		if _, err := l.stage.PutStream(int(l.tree.Fd()), name, regular(0o644, 1), 0, &zeros{}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	bad := regular(0o644, 1)
	bad.Header.Xattrs = []object.Xattr{{Name: "nonsense.name", Value: []byte("v")}}
	var refused *store.AttributeError
	if _, err := l.stage.PutFile(int(l.tree.Fd()), "y", bad, []byte("y")); !errors.As(err, &refused) || refused.Name != "nonsense.name" {
		t.Errorf("attribute: %v", err)
	}
	if _, err := os.Lstat(l.stage.Path() + "/tree/y"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is left after an error: %v", err)
	}
	short := func(n int64) error {
		_, err := l.stage.PutStream(int(l.tree.Fd()), "z", regular(0o644, 1), n, &zeros{left: 100_000})
		return err
	}
	if err := short(100_001); err == nil {
		t.Error("a stream that is too short is no error")
	}
	if err := short(100_000); err != nil {
		t.Error(err)
	}
}

// zeros reads as so many zero bytes.
type zeros struct{ left int }

func (z *zeros) Read(b []byte) (int, error) {
	n := min(len(b), z.left)
	clear(b[:n])
	z.left -= n
	if n == 0 {
		return 0, fs.ErrClosed
	}
	return n, nil
}
