package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRelease keeps what other refs reach, wherever they are and whoever made them.
func TestRelease(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	for _, kept := range []string{"", "refs/heads/mine", "refs/remotes/origin/x", "refs/mirrors/org.example/y", "alias"} {
		t.Run("kept by "+strings.ReplaceAll(kept, "/", "."), func(t *testing.T) {
			w := newWorld(t, top)
			must(t, w.apply("base", StageOptions{}, baseFiles...))
			must(t, w.apply("next", StageOptions{}, nextFiles...))
			all, _ := w.count()
			c, err := w.repo.Ref("layer/next")
			must(t, err)
			switch path := w.home + "/repo/" + kept; kept {
			case "":
			case "alias":
				must(t, w.repo.SetRef("other", c))
				must(t, os.Symlink("other", w.home+"/repo/refs/heads/also"))
			default:
				must(t, os.MkdirAll(filepath.Dir(path), 0o700))
				must(t, os.WriteFile(path, []byte(c.String()+"\n"), 0o600))
			}
			must(t, w.reap("next"))
			w.check("after the removal")
			objects, lanes := w.count()
			if kept == "" && objects == all || kept != "" && objects != all {
				t.Errorf("%d of %d objects are left", objects, all)
			}
			if lanes != 1 {
				t.Errorf("%d lanes", lanes)
			}
			freed, err := w.repo.Release(context.Background(), c)
			must(t, err)
			if freed.Objects != 0 {
				t.Errorf("released again: %+v", freed)
			}
			w.check("at the end")
		})
	}
}

// TestReleaseRefuses does not guess what a ref that cannot be read protects.
func TestReleaseRefuses(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	c, err := w.repo.Ref("layer/base")
	must(t, err)
	must(t, w.repo.SetRef("torn", c))
	torn := w.home + "/repo/refs/heads/torn"
	must(t, os.Truncate(torn, 10))
	if err := w.reap("base"); err == nil {
		t.Error("removed in spite of a torn ref")
	}
	if objects, _ := w.count(); objects != 5 {
		t.Errorf("%d objects are left", objects)
	}
	must(t, os.WriteFile(torn, []byte(c.String()), 0o600))
	must(t, w.repo.DeleteRef("torn"))
	left, err := w.repo.Recover(context.Background())
	must(t, err)
	if len(left) != 1 || left[0].Kind != "removal" {
		t.Errorf("leftovers: %v", left)
	}
	if objects, lanes := w.count(); objects != 0 || lanes != 0 {
		t.Errorf("%d objects, %d lanes are left", objects, lanes)
	}
}

// TestReleaseSeesNewRefs lets a ref come up after a deletion has looked at the refs, while it waits for the lock.
func TestReleaseSeesNewRefs(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	must(t, w.apply("next", StageOptions{}, nextFiles...))
	all, _ := w.count()
	c, err := w.repo.Ref("layer/next")
	must(t, err)
	time.Sleep(2 * settledSince)
	unlock, err := w.repo.root.lockShared(context.Background())
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- w.reap("next") }()
	time.Sleep(300 * time.Millisecond) // it has looked by now, or else the test shows nothing
	must(t, w.repo.root.writeRef(int(w.repo.root.heads.Fd()), "mine", c, later))
	unlock()
	must(t, <-done)
	w.check("after the removal")
	if objects, _ := w.count(); objects != all {
		t.Errorf("%d of %d objects are left", objects, all)
	}
}

// TestPrune deletes what nobody reaches: orphaned commits, objects, lanes.
func TestPrune(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	must(t, w.apply("next", StageOptions{}, nextFiles...))
	objects, lanes := w.count()
	c, err := w.repo.Ref("layer/next")
	must(t, err)
	must(t, w.repo.DeleteRef("layer/next"))
	must(t, os.RemoveAll(w.home+"/next"))
	meta := w.home + "/repo/objects/" + object.Name{Checksum: c, Type: object.TypeCommit}.LoosePath() + "meta"
	must(t, os.WriteFile(meta, nil, 0o600))
	counted, err := w.repo.Prune(context.Background(), true)
	must(t, err)
	if o, l := w.count(); o != objects+1 || l != lanes {
		t.Errorf("a dry run deleted something: %d objects, %d lanes", o, l)
	}
	freed, err := w.repo.Prune(context.Background(), false)
	must(t, err)
	if freed.Objects != 5 || freed.Lanes != 1 || counted.Objects != freed.Objects || freed.Bytes == 0 {
		t.Errorf("freed %+v, counted %+v", freed, counted)
	}
	if o, l := w.count(); o != objects-5 || l != lanes-1 {
		t.Errorf("left: %d objects, %d lanes", o, l)
	}
	w.check("after prune")
}

// TestRecoverSparesTheLiving leaves stages and removals alone that a process holds, and takes those that none does.
func TestRecoverSparesTheLiving(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	must(t, w.apply("next", StageOptions{}, nextFiles...))
	s, err := w.repo.NewStage(StageOptions{})
	must(t, err)
	home, err := os.Open(w.home)
	must(t, err)
	defer home.Close()
	trash, err := w.repo.MoveToTrash(home, "next", "layer/next")
	must(t, err)
	must(t, os.Mkdir(w.home+"/repo/"+stagingDir+"/of-another-boot", 0o700))
	left, err := w.repo.Recover(context.Background())
	must(t, err)
	if len(left) != 1 || left[0].Path != stagingDir+"/of-another-boot" {
		t.Errorf("leftovers: %v", left)
	}
	if _, err := os.Stat(s.Path()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(trash.Path()); err != nil {
		t.Error(err)
	}
	s.leave()
	trash.unlock()
	left, err = w.repo.Recover(context.Background())
	must(t, err)
	if len(left) != 2 {
		t.Errorf("leftovers: %v", left)
	}
	w.check("after recovery")
}

// TestRemoveDeep removes a tree that is deeper than a process has descriptors, in a short time.
func TestRemoveDeep(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	const depth = 3000
	must(t, os.Mkdir(w.home+"/deep", 0o700))
	fd, err := unix.Open(w.home+"/deep", unix.O_DIRECTORY, 0)
	must(t, err)
	for i := range depth {
		must(t, unix.Mkdirat(fd, "d", 0o700))
		f, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, err)
		unix.Close(f)
		next, err := unix.Openat(fd, "d", unix.O_DIRECTORY, 0)
		must(t, errors.Join(err, unix.Close(fd)))
		fd = next
		if i%1000 == 0 {
			must(t, unix.Symlinkat("/etc", fd, "link"))
		}
	}
	files := 0
	top, err := os.Open(w.home + "/deep")
	must(t, err)
	must(t, walkTree(int(top.Fd()), func(entry) error { files++; return nil }))
	top.Close()
	if files != depth+depth/1000 {
		t.Errorf("walked %d files", files)
	}
	must(t, unix.Close(fd))
	must(t, w.reap("deep"))
	if left, _ := filepath.Glob(w.home + "/repo/" + trashDir + "/*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestB12FsckFinds damages a repository in every way that it can be, and wants each found and named.
func TestB12FsckFinds(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	object3 := func(w *world, ext string) string {
		found, _ := filepath.Glob(w.home + "/repo/objects/*/*." + ext)
		if len(found) == 0 {
			t.Fatalf("no %s", ext)
		}
		return found[0]
	}
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return errors.Join(err, f.Close())
	}
	lane := func(w *world) string {
		found, _ := filepath.Glob(w.home + "/repo/" + lanesDir + "/*/*")
		return found[0]
	}
	for _, c := range []struct {
		name  string
		spoil func(w *world) error
		kind  FindingKind
		quick bool // found by a quick check too
		refs  int
	}{
		{"bit in a file", func(w *world) error { return flip(object3(w, "file")) }, Corrupt, false, 1},
		{"mode of a file", func(w *world) error { return os.Chmod(object3(w, "file"), 0o777) }, Corrupt, false, 1},
		{"owner of a file", func(w *world) error { return os.Chown(object3(w, "file"), 1, 1) }, Corrupt, false, 1},
		{"attribute of a file", func(w *world) error { return unix.Setxattr(object3(w, "file"), "user.x", []byte("y"), 0) }, Corrupt, false, 1},
		{"bit in a dirtree", func(w *world) error { return flip(object3(w, "dirtree")) }, Corrupt, true, 1},
		{"bit in a dirmeta", func(w *world) error { return flip(object3(w, "dirmeta")) }, Corrupt, true, 1},
		{"bit in a commit", func(w *world) error { return flip(object3(w, "commit")) }, Corrupt, true, 1},
		{"no file", func(w *world) error { return os.Remove(object3(w, "file")) }, Missing, true, 1},
		{"no dirtree", func(w *world) error { return os.Remove(object3(w, "dirtree")) }, Missing, true, 1},
		{"no dirmeta", func(w *world) error { return os.Remove(object3(w, "dirmeta")) }, Missing, true, 1},
		{"no commit", func(w *world) error { return os.Remove(object3(w, "commit")) }, BadRef, true, 0},
		{"orphaned commit", func(w *world) error {
			return errors.Join(w.repo.DeleteRef("layer/base"), os.Remove(object3(w, "dirtree")))
		}, Missing, true, 0},
		{"torn ref", func(w *world) error { return os.Truncate(w.home+"/repo/refs/heads/layer/base", 0) }, BadRef, true, 0},
		{"foreign file", func(w *world) error { return os.WriteFile(object3(w, "file")+".bak", nil, 0o600) }, Foreign, true, 0},
		{"fifo", func(w *world) error {
			path := object3(w, "file")
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644))
		}, Corrupt, true, 1},
		{"bit in a lane", func(w *world) error { return flip(lane(w)) }, BadLane, false, 1},
		{"time of a lane", func(w *world) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, lane(w), Time{7, 7}.spec(), 0)
		}, BadLane, true, 1},
		{"foreign lane", func(w *world) error { return os.WriteFile(lane(w)+"x", nil, 0o600) }, Foreign, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, top)
			must(t, w.apply("base", StageOptions{}, baseFiles...))
			w.check("before")
			must(t, c.spoil(w))
			for _, quick := range []bool{false, true} {
				var found []Finding
				must(t, w.repo.Fsck(context.Background(), FsckOptions{Quick: quick}, func(f Finding) { found = append(found, f) }))
				if quick && !c.quick {
					continue
				}
				var kinds []string
				hit := false
				for _, f := range found {
					hit = hit || f.Kind == c.kind && len(f.Refs) == c.refs
					kinds = append(kinds, f.String())
				}
				if !hit {
					t.Errorf("quick=%v: found %q", quick, kinds)
				}
			}
		})
	}
}

// TestB07Unsynced publishes without a sync, tears objects as a power cut would, and comes back with another boot id.
func TestB07Unsynced(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	o := StageOptions{NoSync: true}
	must(t, w.apply("one", o, testFile{name: "a", body: "aaaa", sec: 1}, testFile{name: "b", body: "bbbb", sec: 1}, testFile{name: "b2", body: "bbbb", sec: 1}))
	notes := func() []string {
		names, err := w.repo.root.unsyncedNotes()
		must(t, err)
		return names
	}
	if len(notes()) != 1 {
		t.Fatalf("notes: %q", notes())
	}
	must(t, w.repo.Sync())
	if len(notes()) != 0 {
		t.Errorf("notes after a sync: %q", notes())
	}
	must(t, w.apply("two", o, testFile{name: "c", body: "cccc", sec: 1}, testFile{name: "d", body: "dddd", sec: 1}, testFile{name: "d2", body: "dddd", sec: 1}))
	tear := func(body string) string {
		h := object.FileHeader{Mode: unix.S_IFREG | 0o644}
		c, err := h.Checksum([]byte(body))
		must(t, err)
		path := w.home + "/repo/objects/" + object.Name{Checksum: c, Type: object.TypeFile}.LoosePath()
		must(t, os.WriteFile(path, make([]byte, 4), 0o644))
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, Time{Sec: 1}.spec(), 0))
		return path
	}
	torn, synced := tear("cccc"), tear("aaaa")
	lanes, err := filepath.Glob(w.home + "/repo/" + lanesDir + "/*/*")
	must(t, err)
	if len(lanes) != 2 {
		t.Fatalf("lanes %q", lanes)
	}
	// In this boot nothing is verified again.
	must(t, w.apply("three", o, testFile{name: "e", body: "eeee", sec: 1}))
	if len(notes()) != 2 {
		t.Errorf("notes: %q", notes())
	}
	if _, err := os.Stat(torn); err != nil {
		t.Error(err)
	}
	defer func(f func() (string, error)) { bootID = f }(bootID)
	bootID = func() (string, error) { return "11111111-2222-3333-4444-555555555555", nil }
	must(t, w.apply("four", StageOptions{}, testFile{name: "c", body: "cccc", sec: 1}, testFile{name: "d", body: "dddd", sec: 1}))
	if len(notes()) != 0 {
		t.Errorf("notes after a reboot: %q", notes())
	}
	if b, err := os.ReadFile(torn); string(b) != "cccc" || err != nil {
		t.Errorf("the torn object is %q, %v", b, err)
	}
	if b, err := os.ReadFile(w.home + "/four/tree/c"); string(b) != "cccc" || err != nil {
		t.Errorf("the new tree has %q, %v", b, err)
	}
	if _, err := os.Stat(synced); err != nil {
		t.Error(err)
	}
	// What was synced is not verified: its damage is for fsck to find. The test repairs it.
	must(t, os.WriteFile(synced, []byte("aaaa"), 0o644))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, synced, Time{Sec: 1}.spec(), 0))
	w.check("at the end")
}
