package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// TestB08Kinds gives the bytes of one kind of object the name of another: the kind is part of the name, and of what is hashed.
func TestB08Kinds(t *testing.T) {
	w := newWorld(t, t.TempDir())
	tree := []byte{0} // the empty dirtree
	f := File{Header: object.FileHeader{Mode: unix.S_IFREG | 0o644}}
	f.Header.UID, f.Header.GID = uint32(os.Getuid()), uint32(os.Getgid())
	sum, err := f.Header.Checksum(tree)
	must(t, err)
	if sum == object.Sum(tree) {
		t.Error("a file and a dirtree of the same bytes have one checksum")
	}
	n := object.Name{Checksum: object.Sum(tree), Type: object.TypeDirTree}
	for _, other := range []object.Type{object.TypeFile, object.TypeDirMeta, object.TypeCommit} {
		fake := object.Name{Checksum: n.Checksum, Type: other}
		path := filepath.Join(w.home, "repo/objects", fake.LoosePath())
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, tree, 0o644))
		if _, err := w.repo.ReadCommit(fake.Checksum); other == object.TypeCommit && !isCorrupt(err) {
			t.Errorf("a dirtree is read as a commit: %v", err)
		}
		found := 0
		must(t, w.repo.Fsck(t.Context(), FsckOptions{}, func(f Finding) {
			if f.Object == fake && f.Kind == Corrupt {
				found++
			}
		}))
		if found != 1 {
			t.Errorf("%s: found %d times", fake, found)
		}
		must(t, os.Remove(path))
	}
}

// TestB19Inodes: on a filesystem without inodes left, a layer is refused with the error that says so, and can be removed.
func TestB19Inodes(t *testing.T) {
	top := testfs.MountOptions(t, "ext4", testfs.Options{Size: 64 << 20, Mkfs: []string{"-N", "2048"}})
	w := newWorld(t, top)
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	objects, lanes := w.count()
	must(t, os.Mkdir(top+"/csi", 0o700))
	for i := 0; ; i++ {
		err := os.WriteFile(fmt.Sprint(top, "/csi/", i), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		must(t, err)
	}
	if err := w.apply("next", StageOptions{}, nextFiles...); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("without inodes: %v", err)
	}
	_, err := w.repo.Recover(t.Context())
	must(t, err)
	w.check("without inodes")
	if o, l := w.count(); o != objects || l != lanes {
		t.Errorf("%d objects and %d lanes, want %d and %d", o, l, objects, lanes)
	}
	must(t, w.reap("base"))
	w.exact(t, nil)
}

// TestB10Locks: nothing of a dead process or of another boot keeps a lock, and no lock file needs to be removed.
func TestB10Locks(t *testing.T) {
	w := newWorld(t, t.TempDir())
	at := w.repo.root
	for _, name := range []string{turnFile, gateFile, lockFile} {
		must(t, os.WriteFile(w.home+"/repo/"+name, []byte("left by process 4711 of another boot\n"), 0o600))
	}
	must(t, w.apply("base", StageOptions{}, baseFiles...))
	must(t, w.reap("base"))
	unlock, err := at.tryLockExclusive()
	must(t, err)
	unlock()
	w.exact(t, nil)
}

// TestB11FaultsElsewhere lets each operation of a removal, a prune, a recovery and a compaction fail once. The error says why, the
// store is sound, and the next try does it.
func TestB11FaultsElsewhere(t *testing.T) {
	top := testfs.Mount(t, "ext4")
	acts := map[string]func(*world) error{
		"remove":  func(w *world) error { return w.reap("next") },
		"prune":   func(w *world) error { _, err := w.repo.Prune(t.Context(), false); return err },
		"recover": func(w *world) error { _, err := w.repo.Recover(t.Context()); return err },
		"compact": compactAll,
		"set-ref": func(w *world) error {
			c, err := w.repo.Ref("layer/base")
			return errors.Join(err, w.repo.SetRef("mine", c))
		},
	}
	for name, act := range acts {
		t.Run(name, func(t *testing.T) {
			for _, errno := range faults {
				for n := 1; ; n++ {
					if failOnce(t, top, name, act, n, errno) {
						break
					}
					if t.Failed() {
						return
					}
				}
			}
		})
	}
}

// failOnce runs act with operation n failing, and reports whether there was none.
func failOnce(t *testing.T, top, name string, act func(*world) error, n int, errno unix.Errno) bool {
	w := newWorld(t, top)
	must(t, shelved(w))
	if name == "recover" {
		w.on(&faulty{cut: 12, err: errCut})
		if w.reap("next") == nil {
			t.Fatal("not cut")
		}
	}
	d := &faulty{cut: n, times: 1, err: errno}
	w.on(d)
	err := act(w)
	none := d.n < n
	what := func() string { return fmt.Sprintf("operation %d (%s): %v", n, d.log[min(n, len(d.log))-1], errno) }
	if none && err != nil || err != nil && !errors.Is(err, errno) {
		t.Errorf("%s: %v", what(), err)
	}
	w.on(kernel{})
	if err != nil || strings.HasPrefix(name, "re") {
		w.reopen()
	}
	w.check(what())
	for _, id := range []string{"next", "base"} {
		if _, err := w.repo.Ref("layer/" + id); err == nil {
			must(t, w.reap(id))
		}
	}
	must(t, w.repo.DeleteRef("mine"))
	_, err = w.repo.Prune(t.Context(), false)
	must(t, err)
	if objects, lanes := w.count(); objects != 0 || lanes != 0 {
		t.Errorf("%s: %d objects and %d lanes are left", what(), objects, lanes)
	}
	must(t, w.repo.Close())
	w.repo, err = Open(w.home + "/repo")
	must(t, err)
	return none
}
