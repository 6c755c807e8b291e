package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Freed is what a removal gave back.
type Freed struct {
	Objects int64 // how many objects were deleted
	Lanes   int64 // how many lanes besides
	Bytes   int64 // blocks of inodes that had no other name
}

// Release deletes the objects that the given commits reach and that no ref reaches any more. Commits that are not there
// are no error.
func (r *Repo) Release(ctx context.Context, commits ...object.Checksum) (Freed, error) {
	var freed Freed
	if err := r.root.writable(); err != nil {
		return freed, err
	}
	m := r.root.newMarker()
	seen := map[object.Checksum]struct{}{}
	for _, c := range commits {
		commit, err := r.ReadCommit(c)
		if isMissing(err) {
			continue
		}
		if err == nil {
			m.add(object.Name{Checksum: c, Type: object.TypeCommit})
			err = r.root.eachReached(ctx, commit, seen, m.add)
		}
		if err != nil && !isCorrupt(err) { // what only a damaged tree names is left for Prune
			return freed, fmt.Errorf("release %s: %w", c, err)
		}
	}
	err := r.root.sweep(ctx, m, &freed)
	return freed, err
}

// sweep deletes what is garbage among the marker's candidates. It looks at all refs before it takes the lock, and under
// the lock only at those that came since.
func (r *root) sweep(ctx context.Context, m *marker, freed *Freed) error {
	if len(m.want) == 0 {
		return nil
	}
	if err := m.refresh(ctx); err != nil {
		return err
	}
	order := m.deletionOrder()
	for len(order) > 0 {
		n, err := r.sweepBatch(ctx, m, order, freed)
		if err != nil {
			return err
		}
		if order = order[n:]; len(order) > 0 {
			time.Sleep(pause)
		}
	}
	return nil
}

// deletionOrder lists the candidates that are left: commits first, since a commit whose trees are gone stops the prune
// and fsck of libostree for the whole repository.
func (m *marker) deletionOrder() []object.Name {
	order := make([]object.Name, 0, len(m.want))
	for n := range m.want {
		order = append(order, n)
	}
	rank := [...]int{object.TypeCommit: 0, object.TypeDirTree: 1, object.TypeDirMeta: 2, object.TypeFile: 3}
	slices.SortFunc(order, func(a, b object.Name) int {
		return cmp.Or(cmp.Compare(rank[a.Type], rank[b.Type]), a.Checksum.Compare(b.Checksum))
	})
	return order
}

// sweepBatch deletes under the exclusive lock for as long as that may be held, and returns how far it came.
func (r *root) sweepBatch(ctx context.Context, m *marker, order []object.Name, freed *Freed) (int, error) {
	unlock, err := r.lockExclusive(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	begin := time.Now()
	if err := m.refresh(ctx); err != nil {
		return 0, err
	}
	for i, n := range order {
		if i > 0 && i%64 == 0 && time.Since(begin) > maxExclusive {
			return i, nil
		}
		if !m.garbage(n) {
			continue
		}
		if err := r.deleteObject(n, freed); err != nil {
			return i, err
		}
	}
	return len(order), nil
}

// deleteObject unlinks an object and, for a commit, what belongs to it.
func (r *root) deleteObject(n object.Name, freed *Freed) error {
	path := n.LoosePath()
	if n.Type == object.TypeCommit {
		if err := r.deleteFile(int(r.objects.Fd()), path+"meta", nil); err != nil {
			return err
		}
		if err := r.deleteFile(r.fd(), "state/"+n.Checksum.String()+".commitpartial", nil); err != nil {
			return err
		}
	}
	return r.deleteFile(int(r.objects.Fd()), path, freed)
}

// deleteFile unlinks a file if it is there, and counts what that frees.
func (r *root) deleteFile(dir int, name string, freed *Freed) error {
	var st unix.Stat_t
	err := lstat(dir, name, &st)
	if err == unix.ENOENT {
		return nil
	}
	if err == nil {
		err = r.disk.remove(dir, name)
	}
	if err != nil && err != unix.ENOENT {
		return placeError("delete", name, err)
	}
	if freed != nil && err == nil {
		freed.Objects++
		if st.Nlink == 1 {
			freed.Bytes += st.Blocks * 512
		}
	}
	return nil
}
