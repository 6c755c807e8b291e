package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// TestB12Mend replaces a damaged object by a copy from another repository, and by nothing else.
func TestB12Mend(t *testing.T) {
	ctx := context.Background()
	repo, other := storetest.New(t), storetest.New(t)
	meta := &object.DirMeta{Mode: unix.S_IFDIR | 0o755}
	put := func(r *store.Repo) object.Checksum {
		s, err := r.NewStage(store.StageOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		m, err := s.PutDirMeta(meta)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := s.PutDirTree(&object.DirTree{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.PutCommit(&object.Commit{Tree: tree, Meta: m})
		if err == nil {
			err = s.Publish(ctx, "x", c, func(func(int, string, store.Placed) error) error { return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	n := object.Name{Checksum: put(repo), Type: object.TypeDirMeta}
	put(other)
	if from, err := repo.Mend(ctx, n, store.MendOptions{}); from != "" || err != nil {
		t.Fatalf("a good object: %q, %v", from, err)
	}
	path := filepath.Join(repo.Path(), "objects", n.LoosePath())
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Mend(ctx, n, store.MendOptions{}); !errors.Is(err, store.ErrNoCopy) {
		t.Fatalf("without a copy: %v", err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("not it"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := store.MendOptions{Files: []string{bad}, Sources: []*store.Repo{other}, DryRun: true}
	if from, err := repo.Mend(ctx, n, o); from == "" || err != nil {
		t.Fatalf("dry run: %q, %v", from, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a dry run wrote: %v", err)
	}
	o.DryRun = false
	want := filepath.Join(other.Path(), "objects", n.LoosePath())
	if from, err := repo.Mend(ctx, n, o); from != want || err != nil {
		t.Fatalf("mended from %q, %v; want %q", from, err, want)
	}
}
