package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A world is a repository with layers beside it, as the layers package keeps them.
type world struct {
	t    testing.TB
	home string
	repo *Repo

	alien bool // stages say that they have files of others
}

// newWorld makes a world in a new directory of top, which is a quick filesystem.
func newWorld(t testing.TB, top string) *world {
	t.Helper()
	home, err := os.MkdirTemp(top, "world-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, home: home}
	r, err := Init(w.home+"/repo", Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.repo = r
	t.Cleanup(func() { w.repo.Close() })
	return w
}

func (w *world) on(d disk) {
	if f, ok := d.(*faulty); ok {
		f.home, f.disk = w.home, kernel{}
	}
	w.repo.root.disk = d
}

// apply makes layer id of the given files (name, content, time), all the way that the layers package goes. When it fails
// it leaves everything as a crash would.
func (w *world) apply(id string, o StageOptions, files ...testFile) (err error) {
	s, err := w.repo.NewStage(o)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := w.repo.root.disk.mkdir(int(s.dir.Fd()), "tree"); err != nil {
		return err
	}
	fd, err := openDir(int(s.dir.Fd()), "tree")
	if err != nil {
		return err
	}
	tree := os.NewFile(uintptr(fd), "tree")
	defer tree.Close()
	var list object.DirTree
	placed := map[string]Placed{}
	for _, f := range files {
		p, err := f.put(s, fd)
		if err != nil {
			return err
		}
		if p.Mode != Loose {
			placed[f.name] = p
		}
		list.Files = append(list.Files, object.TreeFile{Name: f.name, Checksum: p.Checksum})
	}
	meta, err := s.PutDirMeta(&object.DirMeta{Mode: unix.S_IFDIR | 0o755})
	if err != nil {
		return err
	}
	top, err := s.PutDirTree(&list)
	if err != nil {
		return err
	}
	commit, err := s.PutCommit(&object.Commit{Tree: top, Meta: meta})
	if err != nil {
		return err
	}
	if w.alien {
		s.syncAll()
	}
	staged := "staged/" + s.Name()
	err = s.Publish(context.Background(), staged, commit, func(link func(int, string, Placed) error) error {
		for _, f := range files {
			if p, ok := placed[f.name]; ok {
				if err := link(fd, f.name, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d := w.repo.root.disk
	if err := d.mkdir(unix.AT_FDCWD, w.home+"/"+id); err != nil && err != unix.EEXIST {
		return err
	}
	if err := s.WriteInodes(w.home+"/"+id+"/inodes", tree); err != nil {
		return err
	}
	if err := d.rename(int(s.dir.Fd()), "tree", unix.AT_FDCWD, w.home+"/"+id+"/tree"); err != nil {
		return err
	}
	if err := w.repo.MoveRef(staged, "layer/"+id); err != nil {
		return err
	}
	if err := s.Close(); err != nil || o.NoSync {
		return err
	}
	return w.repo.SyncNames()
}

type testFile struct {
	name, body string
	sec        int64
	private    bool
	loose      bool
	stream     bool
}

func (f testFile) put(s *Stage, dir int) (Placed, error) {
	file := File{Header: object.FileHeader{Mode: unix.S_IFREG | 0o644}, MTime: Time{Sec: f.sec}, Private: f.private}
	if f.loose {
		return s.PutLoose(file, []byte(f.body))
	}
	if f.stream {
		return s.PutStream(dir, f.name, file, int64(len(f.body)), strings.NewReader(f.body))
	}
	return s.PutFile(dir, f.name, file, []byte(f.body))
}

// reap removes a layer.
func (w *world) reap(id string) error {
	home, err := os.Open(w.home)
	if err != nil {
		return err
	}
	defer home.Close()
	t, err := w.repo.MoveToTrash(home, id, "layer/"+id)
	if err != nil {
		return err
	}
	return t.Remove()
}

// check fails the test for each finding, and for each layer of which the ref is there but not the tree or the other way
// round is.
func (w *world) check(when string) {
	w.t.Helper()
	err := w.repo.Fsck(context.Background(), FsckOptions{}, func(f Finding) { w.t.Errorf("%s: %s", when, f) })
	if err != nil {
		w.t.Errorf("%s: %v", when, err)
	}
}

// reopen is what the next process sees after a crash: another Repo, and Recover.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.repo.Close(); err != nil {
		w.t.Fatal(err)
	}
	r, err := Open(w.home + "/repo")
	if err != nil {
		w.t.Fatal(err)
	}
	w.repo = r
	w.check("before recovery") // ostree may look at any time
	if _, err := r.Recover(context.Background()); err != nil {
		w.t.Fatalf("recover: %v", err)
	}
	for _, dir := range []string{stagingDir, trashDir} {
		if left, _ := filepath.Glob(w.home + "/repo/" + dir + "/*"); len(left) > 0 {
			w.t.Errorf("left after recovery: %q", left)
		}
	}
}

// drop removes what upper layers leave behind when a layer was not finished.
func (w *world) drop(id string) {
	w.t.Helper()
	if _, err := w.repo.Ref("layer/" + id); !errors.Is(err, os.ErrNotExist) {
		return
	}
	home, err := os.Open(w.home)
	must(w.t, err)
	defer home.Close()
	t, err := w.repo.MoveToTrash(home, id)
	if !errors.Is(err, os.ErrNotExist) {
		must(w.t, errors.Join(err, t.Remove()))
	}
}

// count returns how many files are under objects and lanes.
func (w *world) count() (objects, lanes int) {
	w.t.Helper()
	if err := w.repo.root.eachObject(func(string) error { objects++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	if err := w.repo.root.eachLane(func(string) error { lanes++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return objects, lanes
}

var (
	baseFiles = []testFile{{name: "a", body: "one", sec: 1}, {name: "b", body: "two", sec: 1}, {name: "c", body: "one", sec: 1}}
	nextFiles = []testFile{
		{name: ".wh.z", loose: true}, {name: "a", body: "one", sec: 2}, {name: "d", body: "three", sec: 1},
		{name: "e", body: "private", sec: 1, private: true}, {name: "f", sec: 1},
	}
)
