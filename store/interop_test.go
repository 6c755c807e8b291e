package store_test

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

func ostree(t testing.TB, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath("ostree")
	if err != nil {
		t.Skip("the ostree program is not installed (apt install ostree)")
	}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ostree %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// various puts one file of each sort that the format has to get right.
func various(t testing.TB, r *store.Repo, l *layer) {
	t.Helper()
	owned := regular(0o4751, 1001)
	owned.Header.UID, owned.Header.GID = 1234, 60_000
	attrs := regular(0o640, 1002)
	attrs.Header.Xattrs = []object.Xattr{
		{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
		{Name: "trusted.t", Value: []byte("tee")},
		{Name: "user.big", Value: make([]byte, 300)},
	}
	acl := regular(0o640, 1003)
	acl.Header.Xattrs = []object.Xattr{{Name: "system.posix_acl_access", Value: aclOf(6, 4, 7, 0)}}
	link := store.File{Header: object.FileHeader{Mode: unix.S_IFLNK | 0o777, Target: "../there", UID: 5}, MTime: store.Time{Sec: -5}}
	private := regular(0o600, 1004)
	private.Private = true
	l.put("a", regular(0o644, 1000), "hello")
	l.put("b", regular(0o644, 1000), "hello")
	l.put("capable", attrs, "with attributes")
	l.put("empty", regular(0o644, 1000), "")
	l.put("hello2", regular(0o644, 2000), "hello")
	l.put("listed", acl, "with an access control list")
	big := make([]byte, 5<<20)
	rand.Read(big[:1<<20])
	l.stream("m-big", regular(0o644, 1000), big)
	l.put("owned", owned, "owned")
	l.put("private", private, "private")
	l.put("symlink", link, "")
}

// aclOf encodes an access control list: owner, a named user, group, mask as given, others.
func aclOf(owner, named, mask, other uint16) []byte {
	b := []byte{2, 0, 0, 0}
	add := func(tag, perm uint16, id uint32) {
		b = append(b, byte(tag), 0, byte(perm), 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	add(1, owner, ^uint32(0))
	add(2, named, 1000)
	add(4, named, ^uint32(0))
	add(0x10, mask, ^uint32(0))
	add(0x20, other, ^uint32(0))
	return b
}

// TestOstreeReadsOurs lets Debian's ostree look at what we wrote.
func TestOstreeReadsOurs(t *testing.T) {
	for _, label := range []string{"", "system_u:object_r:container_ro_file_t:s0"} {
		t.Run("label="+label, func(t *testing.T) {
			home := t.TempDir()
			r := storetest.At(t, home+"/repo", store.Options{Label: label})
			l := stage(t, r, store.StageOptions{})
			various(t, r, l)
			sum, _ := l.publish("layer/one", home+"/one")
			ostree(t, "fsck", "--repo", r.Path())
			if out := ostree(t, "refs", "--repo", r.Path()); strings.TrimSpace(out) != "layer/one" {
				t.Errorf("refs: %q", out)
			}
			if out := ostree(t, "rev-parse", "--repo", r.Path(), "layer/one"); strings.TrimSpace(out) != sum.String() {
				t.Errorf("rev-parse: %q, want %s", out, sum)
			}
			list := ostree(t, "ls", "-R", "-X", "--repo", r.Path(), "layer/one")
			for _, want := range []string{"/a\n", "-04751 1234 60000      5", "/symlink -> ../there\n", "user.big", "/m-big\n"} {
				if !strings.Contains(list, want) {
					t.Errorf("ls lacks %q:\n%s", want, list)
				}
			}
			ostree(t, "checkout", "--repo", r.Path(), "-H", "layer/one", home+"/linked")
			ostree(t, "checkout", "--repo", r.Path(), "-C", "layer/one", home+"/copied")
			for _, dir := range []string{"linked", "copied"} {
				out, err := exec.Command("diff", "-r", "--no-dereference", home+"/one/tree", home+"/"+dir).CombinedOutput()
				if err != nil {
					t.Errorf("%s differs: %s", dir, out)
				}
			}
			ostree(t, "init", "--mode=bare", "--repo", home+"/other")
			ostree(t, "pull-local", "--repo", home+"/other", r.Path(), "layer/one")
			ostree(t, "fsck", "--repo", home+"/other")
		})
	}
}

// TestWeReadOstrees reads a repository that ostree commit wrote, and stages files out of it.
func TestWeReadOstrees(t *testing.T) {
	home := t.TempDir()
	ostree(t, "init", "--mode=bare", "--repo", home+"/theirs")
	if err := os.MkdirAll(home+"/in/sub", 0o750); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"in/x": "ex\n", "in/sub/y": "why\n"} {
		if err := os.WriteFile(home+"/"+name, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("x", home+"/in/l"); err != nil {
		t.Fatal(err)
	}
	ostree(t, "commit", "--repo", home+"/theirs", "-b", "os/stable", "-s", "Subject", home+"/in")
	ostree(t, "refs", "--repo", home+"/theirs", "os/stable", "--alias", "--create=os/now")
	r, err := store.Open(home + "/theirs")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	storetest.Check(t, r)
	if !r.ReadOnly() {
		t.Error("a repository without our extension is open for writing")
	}
	refs, err := r.Refs("os")
	if err != nil || len(refs) != 2 || refs["os/stable"] != refs["os/now"] {
		t.Errorf("refs: %v, %v", refs, err)
	}
	commit, err := r.ReadCommit(refs["os/now"])
	if err != nil {
		t.Fatal(err)
	}
	if commit.Subject != "Subject" {
		t.Errorf("subject %q", commit.Subject)
	}
	tree, err := r.ReadDirTree(commit.Tree)
	if err != nil || len(tree.Files) != 2 || len(tree.Dirs) != 1 || tree.Files[1].Name != "x" {
		t.Fatalf("tree %+v, %v", tree, err)
	}
	if meta, err := r.ReadDirMeta(tree.Dirs[0].Meta); err != nil || meta.Mode != unix.S_IFDIR|0o750 {
		t.Errorf("dirmeta %+v, %v", meta, err)
	}
	h, f, err := r.OpenFile(tree.Files[1].Checksum)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "ex\n" || h.Mode != unix.S_IFREG|0o644 {
		t.Errorf("file %+v %q, %v", h, b, err)
	}
	if h, f, err := r.OpenFile(tree.Files[0].Checksum); err != nil || f != nil || h.Target != "x" {
		t.Errorf("symlink %+v, %v", h, err)
	}
	ours := storetest.At(t, home+"/ours", store.Options{})
	l := stage(t, ours, store.StageOptions{Sources: []*store.Repo{r}})
	file := store.File{Header: *h}
	p, err := l.stage.PutObject(int(l.tree.Fd()), "x", file, tree.Files[1].Checksum)
	if err != nil || p.Mode != store.Adopted {
		t.Fatalf("%+v, %v", p, err)
	}
	l.add("x", p)
	l.publish("layer/x", home+"/x")
	path := object.Name{Checksum: p.Checksum, Type: object.TypeFile}.LoosePath()
	if ino(t, home+"/theirs/objects/"+path) != ino(t, home+"/ours/objects/"+path) {
		t.Error("the object was not linked from the other repository")
	}
	ostree(t, "fsck", "--repo", ours.Path())
}

// TestOstreeWritesOurs lets ostree commit and prune work in our repository.
func TestOstreeWritesOurs(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	l := stage(t, r, store.StageOptions{})
	various(t, r, l)
	l.publish("layer/one", home+"/one")
	staged := stage(t, r, store.StageOptions{})
	staged.put("half", regular(0o644, 1), "half done")
	ostree(t, "commit", "--repo", r.Path(), "-b", "mine", home+"/one/tree")
	ostree(t, "prune", "--repo", r.Path(), "--refs-only", "--depth=0")
	ostree(t, "fsck", "--repo", r.Path())
	if _, err := os.Stat(staged.stage.Path() + "/tree/half"); err != nil {
		t.Errorf("ostree touched a stage: %v", err)
	}
	staged.publish("layer/half", home+"/half")
	if _, err := r.Prune(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	ostree(t, "fsck", "--repo", r.Path())
	ostree(t, "ls", "-R", "--repo", r.Path(), "mine")
	before, err := r.Ref("mine")
	if err != nil {
		t.Fatal(err)
	}
	ostree(t, "refs", "--repo", r.Path(), "--delete", "mine")
	freed, err := r.Prune(context.Background(), false)
	if err != nil || freed.Objects == 0 {
		t.Errorf("%+v, %v", freed, err)
	}
	if ok, _ := r.Has(object.Name{Checksum: before, Type: object.TypeCommit}); ok {
		t.Error("the commit that ostree made is still there")
	}
	if left, _ := filepath.Glob(r.Path() + "/extensions/ostree-storage/staging/*"); len(left) != 0 {
		t.Errorf("stages are left: %q", left)
	}
}

// TestLocksOfOstree holds our locks against libostree's: commit passes a shared lock, prune waits for it, and both wait
// for an exclusive one.
func TestLocksOfOstree(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	l := stage(t, r, store.StageOptions{})
	l.put("a", regular(0o644, 1000), "hello")
	commit := l.commit()
	if err := os.Mkdir(home+"/in", 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (ended chan error) {
		ended = make(chan error, 1)
		cmd := exec.Command("ostree", append(args, "--repo", r.Path())...)
		if err := cmd.Start(); err != nil {
			t.Skipf("the ostree program cannot run: %v", err)
		}
		go func() { ended <- cmd.Wait() }()
		return ended
	}
	waits := func(ended chan error, long time.Duration) bool {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ostree: %v", err)
			}
			return false
		case <-time.After(long):
			return true
		}
	}
	var prune chan error
	err := l.stage.Publish(context.Background(), "layer/a", commit, func(link func(int, string, store.Placed) error) error {
		if waits(run("commit", "-b", "mine", home+"/in"), 20*time.Second) {
			t.Fatal("ostree commit waits for our shared lock")
		}
		prune = run("prune", "--refs-only")
		if !waits(prune, 700*time.Millisecond) {
			t.Fatal("ostree prune does not wait for our shared lock")
		}
		return l.links(link)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-prune; err != nil {
		t.Errorf("ostree prune after the lock: %v", err)
	}
	if _, err := r.Ref("layer/a"); err != nil {
		t.Error(err)
	}
	var after []chan error
	if err := store.WithExclusive(r, func() {
		for _, args := range [][]string{{"commit", "-b", "mine", home + "/in"}, {"prune", "--refs-only"}} {
			ended := run(args...)
			if !waits(ended, 700*time.Millisecond) {
				t.Fatalf("ostree %s does not wait for our exclusive lock", args[0])
			}
			after = append(after, ended)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, ended := range after {
		if err := <-ended; err != nil {
			t.Errorf("ostree after the lock: %v", err)
		}
	}
	ostree(t, "fsck", "--repo", r.Path())
}
