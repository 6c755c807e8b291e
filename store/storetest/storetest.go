// Package storetest makes repositories for tests. Each is checked when its test ends.
package storetest

import (
	"context"
	"testing"

	"github.com/ostree-storage/ostree-storage/store"
)

// New makes a repository in a temporary directory. When the test ends the repository is checked and closed.
func New(t testing.TB) *store.Repo {
	t.Helper()
	return At(t, t.TempDir()+"/repo", store.Options{})
}

// At is New at a given path and with options.
func At(t testing.TB, path string, o store.Options) *store.Repo {
	t.Helper()
	r, err := store.Init(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Check(t, r)
		if err := r.Close(); err != nil {
			t.Errorf("close repository: %v", err)
		}
	})
	return r
}

// Check fails the test for each thing that Fsck finds.
func Check(t testing.TB, r *store.Repo) {
	t.Helper()
	err := r.Fsck(context.Background(), store.FsckOptions{}, func(f store.Finding) { t.Errorf("fsck: %s", f) })
	if err != nil {
		t.Errorf("fsck: %v", err)
	}
}
