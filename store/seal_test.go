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
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
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

// crowd adds layers to a world that are nothing but refs, commits and lists.
func crowd(w *world, n int) error {
	r := w.repo.root
	base, err := w.repo.Ref("layer/base")
	if err != nil {
		return err
	}
	like, err := w.repo.ReadCommit(base)
	if err != nil {
		return err
	}
	for i := range n {
		c := *like
		c.Timestamp = uint64(i + 1)
		b, err := c.MarshalBinary()
		if err != nil {
			return err
		}
		name := object.Name{Checksum: object.Sum(b), Type: object.TypeCommit}
		path := r.path + "/objects/" + name.LoosePath()
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644))
		if err != nil {
			return err
		}
		keys, err := r.keysOf(context.Background(), name.Checksum)
		if err != nil {
			return err
		}
		list := r.path + "/" + indexDir + "/new/" + name.Checksum.String()
		if err := os.WriteFile(list, index.AppendList(nil, keys), 0o600); err != nil {
			return err
		}
		ref := fmt.Sprintf("%s/%s/crowd%d", r.path, layerRefsDir, i)
		err = os.WriteFile(ref, []byte(name.Checksum.String()+"\n"), 0o644)
		if err = errors.Join(err, os.Link(ref, r.path+"/"+indexDir+"/refs/"+name.Checksum.String())); err != nil {
			return err
		}
	}
	return compactAll(w)
}

// TestRemovalCostsTheLayer: a removal costs what it removes, with ten layers in the store and with four thousand.
func TestRemovalCostsTheLayer(t *testing.T) {
	many, most := 4000, 1.4
	top := testfs.Mount(t, "ext4")
	var worlds [2]*world
	for i, n := range []int{10, many} {
		worlds[i] = newWorld(t, top)
		must(t, worlds[i].apply("base", StageOptions{}, baseFiles...))
		must(t, crowd(worlds[i], n))
		must(t, worlds[i].apply("seals", StageOptions{}, nextFiles...))
		must(t, worlds[i].reap("seals"))
	}
	var took [2][]time.Duration
	for round := range 15 {
		var files []testFile
		for i := range 400 {
			files = append(files, testFile{name: fmt.Sprintf("f%d", i), body: fmt.Sprint(round, i), sec: 1})
		}
		slices.SortFunc(files, func(a, b testFile) int { return compareStrings(a.name, b.name) })
		for i, w := range worlds {
			must(t, w.apply("mine", StageOptions{NoSync: true}, files...))
			before := cpu(t)
			must(t, w.reap("mine"))
			took[i] = append(took[i], cpu(t)-before)
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	few, all := took[0][len(took[0])/2], took[1][len(took[1])/2]
	t.Logf("median CPU of a removal: %v beside 10 layers, %v beside %d: %.3f", few, all, many, float64(all)/float64(few))
	if ratio := float64(took[1][3]) / float64(took[0][3]); ratio > most {
		t.Errorf("a removal beside %d layers costs %.2f of what it costs beside 10", many, ratio)
	}
	for _, w := range worlds {
		if !w.repo.root.sealed() {
			t.Error("the seal was lost")
		}
		must(t, w.repo.Fsck(context.Background(), FsckOptions{Quick: true}, func(f Finding) { t.Error(f) }))
	}
}

func compareStrings(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// cpu is the processor time of this process.
func cpu(t *testing.T) time.Duration {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
