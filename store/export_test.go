package store

import "context"

// WithExclusive runs f under the exclusive lock.
func WithExclusive(r *Repo, f func()) error {
	unlock, err := r.root.lockExclusive(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	f()
	return nil
}
