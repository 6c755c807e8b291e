package programs

import (
	"context"

	"github.com/ostree-storage/ostree-storage/store"
)

// ownFsck looks for what libostree does not know of: lanes, leftovers, refs. It reads no bodies, as ostree just did.
func (s *Store) ownFsck(ctx context.Context) {
	s.t.Helper()
	r, err := store.Open(s.Repo())
	if err != nil {
		s.t.Error(err)
		return
	}
	defer r.Close()
	err = r.Fsck(ctx, store.FsckOptions{Quick: true}, func(f store.Finding) { s.t.Errorf("our fsck: %v", f) })
	if err != nil {
		s.t.Errorf("our fsck: %v", err)
	}
}
