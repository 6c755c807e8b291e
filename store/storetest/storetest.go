// Package storetest makes repositories for tests. Each is checked when its test ends.
package storetest

import (
	"testing"

	"github.com/ostree-storage/ostree-storage/store"
)

// New makes a repository in a temporary directory. When the test ends the repository is checked and closed.
func New(t testing.TB) *store.Repo { return At(t, t.TempDir()+"/repo") }

// At is New at a given path.
func At(t testing.TB, path string) *store.Repo {
	t.Helper()
	panic("not written yet")
}

// Check fails the test for each thing that Fsck finds.
func Check(t testing.TB, r *store.Repo) {
	t.Helper()
	panic("not written yet")
}
