package layers

import (
	"context"
	"errors"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

var errNotApplied = errors.New("nothing was applied to the layer")

type commitWalk struct{}

func newCommitWalk(ctx context.Context, r *store.Repo, commit object.Checksum, fn func(*Entry) error) (*commitWalk, error) {
	panic("not written yet")
}

func (w *commitWalk) run() error { panic("not written yet") }

// CheckoutOptions says how Checkout writes.
type CheckoutOptions struct {
	UserXattr bool      // overlay's marks are user.overlay.*
	Root      *RootMeta // owner and mode of a root directory that the tar did not list, if not nil
}

// RootMeta is the owner and the permission bits of a root directory.
type RootMeta struct{ UID, GID, Mode uint32 }

// Checkout writes the exact tree of a layer commit into the empty directory dir, from the repository alone: copies, or reflinks
// where the filesystem can, never links.
func Checkout(ctx context.Context, r *store.Repo, commit object.Checksum, dir string, o CheckoutOptions) error {
	panic("not written yet")
}
