package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// sealedWorld makes a world with the layers base and next, and a seal.
func sealedWorld(w *world) error {
	err := errors.Join(w.apply("base", StageOptions{}, baseFiles...),
		w.apply("gone", StageOptions{}, testFile{name: "g", body: "gone"}),
		w.apply("next", StageOptions{}, nextFiles...), w.reap("gone"))
	if err == nil && !w.repo.root.sealed() {
		err = errors.New("a removal did not seal the refs")
	}
	return err
}

// TestSealStays: what we do ourselves keeps the seal, on every filesystem, and what others do breaks it.
func TestSealStays(t *testing.T) {
	for _, kind := range testfs.Kinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, testfs.Mount(t, kind))
			must(t, sealedWorld(w))
			r := w.repo.root
			stays := func(when string, err error) {
				t.Helper()
				must(t, err)
				if !r.sealed() {
					t.Errorf("%s broke the seal", when)
				}
				w.check(when)
			}
			stays("a new layer", w.apply("new", StageOptions{}, testFile{name: "n", body: "new"}))
			stays("the same again", w.apply("again", StageOptions{}, baseFiles...))
			stays("a removal", w.reap("new"))
			stays("the removal of one of two", w.reap("base"))
			stays("a compaction", func() error { r.compact(); return nil }())
			c, err := w.repo.Ref("layer/again")
			must(t, err)
			dir := w.repo.Path() + "/" + layerRefsDir
			for name, change := range map[string]func() error{
				"a ref":     func() error { return os.WriteFile(dir+"/x", []byte(c.String()+"\n"), 0o644) },
				"a link":    func() error { return os.Link(dir+"/next", dir+"/y") },
				"a symlink": func() error { return os.Symlink("next", dir+"/z") },
				"a replacement": func() error {
					return errors.Join(os.WriteFile(w.home+"/f", []byte(c.String()), 0o644), os.Rename(w.home+"/f", dir+"/x"))
				},
				"a ref that is gone": func() error { return w.repo.DeleteRef("layer/x") },
				"a ref of others that we move": func() error {
					return errors.Join(os.WriteFile(w.repo.Path()+"/refs/heads/f", []byte(c.String()), 0o644), w.repo.MoveRef("f", "layer/x"))
				},
				"a time that is set": func() error {
					var st unix.Stat_t
					must(t, unix.Stat(dir, &st))
					must(t, os.WriteFile(dir+"/x", []byte(c.String()), 0o644))
					return unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, 0)
				},
				"an index that is gone": func() error { return os.RemoveAll(r.path + "/" + indexDir) },
				"no lists": func() error {
					return errors.Join(os.RemoveAll(r.path+"/"+indexDir+"/new"), os.Mkdir(r.path+"/"+indexDir+"/new", 0o700))
				},
				"another boot": func() error {
					bootID = func() (string, error) { return "11111111-2222-3333-4444-555555555555", nil }
					return nil
				},
			} {
				os.Remove(dir + "/x")
				os.Remove(dir + "/y")
				os.Remove(dir + "/z")
				_, err := w.repo.Prune(context.Background(), false)
				must(t, err)
				if name == "a ref that is gone" {
					must(t, os.WriteFile(dir+"/x", []byte(c.String()), 0o644))
				}
				must(t, r.seal(context.Background()))
				if sealed := r.sealed(); sealed != (name != "a ref that is gone") {
					t.Fatalf("sealed before %s: %v", name, sealed)
				}
				boot := bootID
				must(t, change())
				if r.sealed() {
					t.Errorf("the seal fits after %s", name)
				}
				bootID = boot
			}
			os.Remove(dir + "/x")
			os.Remove(dir + "/y")
			os.Remove(dir + "/z")
			_, err = w.repo.Prune(context.Background(), false)
			must(t, err)
			must(t, errors.Join(w.reap("again"), w.reap("next")))
			if objects, lanes := w.count(); objects != 0 || lanes != 0 {
				t.Errorf("%d objects and %d lanes are left", objects, lanes)
			}
			w.check("empty")
		})
	}
}

// A meddler runs something before the n-th operation, or as soon after it as nobody deletes.
type meddler struct {
	*faulty
	r      *root
	mu     sync.Mutex
	n, at  int
	meddle func()
}

func (m *meddler) op() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	if m.n < m.at || m.meddle == nil {
		return
	}
	fd, err := m.r.tryAcquire(lockFile, unix.F_RDLCK)
	if err != nil {
		return
	}
	unix.Close(fd)
	do := m.meddle
	m.meddle = nil
	do()
}

func (m *meddler) link(a int, b string, c int, d string) error {
	m.op()
	return m.faulty.link(a, b, c, d)
}
func (m *meddler) rename(a int, b string, c int, d string) error {
	m.op()
	return m.faulty.rename(a, b, c, d)
}
func (m *meddler) remove(a int, b string) error { m.op(); return m.faulty.remove(a, b) }
func (m *meddler) stamp(a int, b string, c unix.Timespec) error {
	m.op()
	err := m.faulty.stamp(a, b, c)
	m.op()
	return err
}
func (m *meddler) symlink(a string, b int, c string) error { m.op(); return m.faulty.symlink(a, b, c) }

// A foreign is a command that makes a ref, which at any moment may be beside ours, and prints the commit that the ref names.
type foreign struct {
	ref    string
	script string
	step   int  // between two operations that are tried, without SOAK
	open   bool // the refs are not sealed before
}

const (
	byCommit = `ostree commit --repo=$REPO -b $REF --timestamp=@$N --tree=dir=$TREE`
	byCreate = there + `ostree refs --repo=$REPO --create=$REF $NEXT && echo $NEXT`
	byRename = there + `echo $NEXT >$REPO/tmp/f && mv $REPO/tmp/f $REPO/refs/heads/$REF && echo $NEXT`
	byLink   = `ln $REPO/refs/heads/layer/next $REPO/refs/heads/$REF && echo $NEXT`

	// ostree names a commit that is not there.
	there = `test -e $REPO/objects/$(echo $NEXT | cut -c1-2)/$(echo $NEXT | cut -c3-).commit && `
)

// TestSealBesideOstree lets the real ostree commit, and name commits of ours, under the names of layers too, between any two
// operations of a pull and of removals that share all its files. Nothing of it may be lost.
func TestSealBesideOstree(t *testing.T) {
	if _, err := exec.LookPath("ostree"); err != nil {
		t.Skip("the ostree program is not installed (apt install ostree)")
	}
	top := testfs.Mount(t, "ext4")
	tree := t.TempDir()
	for _, f := range slices.Concat(baseFiles, nextFiles) {
		must(t, os.WriteFile(filepath.Join(tree, f.name), []byte(f.body), 0o644))
	}
	for name, f := range map[string]foreign{
		"layer":    {"layer/foreign", byCommit, 5, false},
		"unsealed": {"layer/foreign", byCommit, 11, true},
		"same":     {"layer/next", byCommit, 23, false},
		"deep":     {"layer/deep/one", byCommit, 23, false},
		"other":    {"foreign", byCommit, 23, false},
		"create":   {"layer/foreign", byCreate, 11, false},
		"rename":   {"layer/foreign", byRename, 11, false},
		"link":     {"layer/foreign", byLink, 11, false},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv("SOAK") != "" {
				f.step = 1
			}
			for n := 1; f.at(t, top, tree, n); n += f.step {
			}
		})
	}
}

// at lets the command run at the n-th operation. It is false if there are not so many.
func (f *foreign) at(t *testing.T, top, tree string, n int) bool {
	w := newWorld(t, top)
	must(t, sealedWorld(w))
	if f.open {
		must(t, w.repo.root.unseal())
	}
	next, err := w.repo.Ref("layer/next")
	must(t, err)
	var made string
	m := &meddler{faulty: &faulty{home: w.home, disk: kernel{}}, r: w.repo.root, at: n}
	m.meddle = func() {
		cmd := exec.Command("sh", "-c", f.script)
		cmd.Env = append(os.Environ(), "REPO="+w.repo.Path(), "REF="+f.ref, "TREE="+tree, "NEXT="+next.String(), fmt.Sprint("N=", n))
		out, err := cmd.CombinedOutput()
		if err != nil && f.script == byCommit {
			t.Errorf("%s: %v\n%s", f.script, err, out)
		}
		if err == nil {
			made = strings.TrimSpace(string(out))
		}
	}
	w.on(m)
	must(t, w.apply("third", StageOptions{}, testFile{name: "d", body: "three", sec: 1}))
	must(t, w.reap("base"))
	err = errors.Join(w.reap("third"), w.reap("next"))
	done := m.meddle != nil
	w.on(kernel{})
	when := fmt.Sprintf("beside %s at operation %d", f.ref, n)
	w.check(when)
	must(t, err)
	if made != "" && f.ref != "layer/next" {
		if out, err := exec.Command("ostree", "fsck", "--repo="+w.repo.Path()).CombinedOutput(); err != nil {
			t.Errorf("%s: ostree fsck: %v\n%s", when, err, out)
		}
		c, err := w.repo.Ref(f.ref)
		must(t, err)
		if c.String() != made {
			t.Errorf("%s: the ref is %s, and was made %s", when, c, made)
		}
	}
	must(t, w.repo.DeleteRef(f.ref))
	_, err = w.repo.Prune(context.Background(), false)
	must(t, err)
	if objects, _ := w.count(); objects != 0 {
		t.Errorf("%s: %d objects are left", when, objects)
	}
	must(t, os.RemoveAll(w.home))
	if done {
		t.Logf("%d operations", n-1)
	}
	return !done && !t.Failed()
}

// TestCutSealed cuts a pull and a removal in a sealed repository.
func TestCutSealed(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	act := func(w *world) error {
		return errors.Join(w.apply("third", StageOptions{}, nextFiles...), w.reap("next"))
	}
	cutEach(t, top, sealedWorld, act, func(t *testing.T, w *world, n int, done bool) {
		w.drop("third")
		for _, id := range []string{"third", "next", "base"} {
			if _, err := w.repo.Ref("layer/" + id); err == nil {
				must(t, w.reap(id))
				w.check("after " + id)
			}
		}
		if objects, lanes := w.count(); objects != 0 || lanes != 0 {
			t.Errorf("%d objects and %d lanes are left", objects, lanes)
		}
	})
}

// A remover runs something when a ref's file is made.
type remover struct {
	*faulty
	something func()
}

func (r *remover) create(dir int, name string, perm uint32) (int, error) {
	if do := r.something; do != nil && name == stagedRefFile {
		r.something = nil
		do()
	}
	return r.faulty.create(dir, name, perm)
}

// TestCommitGoesWhileItIsStaged: a layer whose commit is known when it is made, and removed before it is published, is counted
// again, or every removal would walk it.
func TestCommitGoesWhileItIsStaged(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	must(t, sealedWorld(w))
	base, err := w.repo.Ref("layer/base")
	must(t, err)
	gone := false
	w.on(&remover{&faulty{home: w.home, disk: kernel{}}, func() { must(t, w.reap("base")); gone = !w.repo.root.knows(base) }})
	must(t, w.apply("again", StageOptions{}, baseFiles...))
	if is, err := w.repo.Ref("layer/again"); err != nil || is != base || !gone {
		t.Fatalf("layer again is %s, want %s that was gone: %v (%v)", is, base, gone, err)
	}
	if !w.repo.root.knows(base) || !w.repo.root.sealed() {
		t.Errorf("the commit is counted: %v, the refs are sealed: %v", w.repo.root.knows(base), w.repo.root.sealed())
	}
	w.check("after it came back")
}
