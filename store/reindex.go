package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Reindex makes the index anew where it does not say what the commits say. It deletes no object.
func Reindex(ctx context.Context, r *Repo) error {
	if err := r.root.writable(); err != nil {
		return err
	}
	m := r.root.newMarker()
	err := m.look(ctx)
	if err == nil {
		err = r.reindex(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("make the index anew: %w", err)
	}
	return nil
}

// reindex makes the index say what the refs say: it forgets commits that no ref names, counts those that it did not know,
// and counts those anew whose list is wrong. An index that cannot be read, or whose sums are wrong, is made anew. The
// marker has walked what the refs name.
func (r *Repo) reindex(ctx context.Context, m *marker) error {
	at := r.root
	wrong, err := at.wrongLists(ctx)
	var damaged *index.DamagedError
	if errors.As(err, &damaged) {
		wrong, err = nil, at.dropIndex(ctx)
	}
	if err == nil {
		err = at.forgetUnnamed(ctx, m, wrong)
	}
	if err != nil {
		return err
	}
	heads := make([]object.Checksum, 0, len(m.heads))
	for c := range m.heads {
		heads = append(heads, c)
	}
	slices.SortFunc(heads, object.Checksum.Compare)
	t, err := r.newTrash() // a place that a crash leaves to Recover
	if err != nil {
		return err
	}
	defer t.unlock()
	for _, c := range heads {
		if err := t.count(ctx, c); err != nil {
			return fmt.Errorf("count commit %s: %w", c, err)
		}
	}
	if err := t.countRefs(ctx); err != nil {
		return fmt.Errorf("count refs: %w", err)
	}
	return at.removeAll(trashDir, t.name)
}

// dropIndex deletes the index. The next who asks makes an empty one.
func (r *root) dropIndex(ctx context.Context) error {
	unlock, err := r.lockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := r.unseal(); err != nil {
		return err
	}
	if err := r.closeIndex(); err != nil {
		return err
	}
	return r.removeAll(extensionDir, indexName)
}

// forgetUnnamed forgets the commits that no ref names and those that are counted wrongly, for as long at a time as the
// lock may be held.
func (r *root) forgetUnnamed(ctx context.Context, m *marker, wrong map[object.Checksum]string) error {
	for done := false; !done; {
		unlock, err := r.lockExclusive(ctx)
		if err != nil {
			return err
		}
		begin := time.Now()
		if err = m.refresh(ctx); err == nil && len(wrong) > 0 {
			err = r.unseal() // refs may name them
		}
		if err == nil {
			err = r.withIndex(func(x *index.Index) (err error) {
				done, err = forgetSome(x, m, wrong, begin)
				return err
			})
		}
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func forgetSome(x *index.Index, m *marker, wrong map[object.Checksum]string, begin time.Time) (done bool, err error) {
	commits, err := x.Commits()
	if err != nil {
		return false, err
	}
	for _, c := range commits {
		_, named := m.heads[c]
		if _, bad := wrong[c]; named && !bad {
			continue
		}
		if err := x.Forget(c); err != nil {
			return false, err
		}
		delete(wrong, c)
		if time.Since(begin) > maxExclusive {
			return false, nil
		}
	}
	return true, nil
}

// count adds a commit that a ref names to the index, if it is whole, has no parent and is not counted yet. The list is made
// without a lock: a commit never changes what it reaches. Under the lock the commit must still be there.
func (t *Trash) count(ctx context.Context, c object.Checksum) error {
	r := t.repo.root
	if r.knows(c) {
		return nil
	}
	keys, err := r.keysOf(ctx, c)
	if keys == nil || err != nil {
		return err
	}
	list := t.path(stagedList)
	fd, err := r.disk.create(r.fd(), list, 0o600)
	if err != nil {
		return placeError("create", list, err)
	}
	err = writeAll(fd, index.AppendList(nil, keys), 0)
	if err == nil {
		err = r.disk.sync(fd)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return &os.PathError{Op: "write", Path: list, Err: err}
	}
	unlock, err := r.lockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	there, err := t.repo.Has(object.Name{Checksum: c, Type: object.TypeCommit})
	if err == nil && there {
		err = r.withIndex(func(x *index.Index) error { return x.Add(c, r.dir, list) })
	}
	if err != nil {
		return err
	}
	return r.disk.remove(r.fd(), list)
}

// countRefs counts the refs of layers that are not, as far as one file for each commit goes.
func (t *Trash) countRefs(ctx context.Context) error {
	r := t.repo.root
	_, rest, err := r.countedRefs(layerRefsDir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil || len(rest) == 0 {
		return err
	}
	unlock, err := r.lockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	mine := t.path(stagedRefFile) // another may be in its place by now: what counts is the file that is read
	for _, name := range rest {
		if err := r.disk.link(int(r.heads.Fd()), layerRefs+name, r.fd(), mine); err != nil {
			continue // gone, a directory, or full
		}
		c, err := r.parseRef(mine)
		if err == nil {
			err = r.withIndex(func(x *index.Index) error { return x.AddRef(c, r.fd(), mine) })
		} else {
			err = nil // fsck tells, and no removal goes on
		}
		if err = errors.Join(err, r.disk.remove(r.fd(), mine)); err != nil {
			return err
		}
	}
	return nil
}

// keysOf returns what the list of a commit has to have; nil for a commit that is not there or has a parent.
func (r *root) keysOf(ctx context.Context, c object.Checksum) ([]index.Key, error) {
	commit, err := (&Objects{r}).ReadCommit(c)
	if isMissing(err) || err == nil && !commit.Parent.IsZero() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys := []index.Key{index.KeyOf(c)}
	visit := func(n object.Name) { keys = append(keys, index.KeyOf(n.Checksum)) }
	if err := r.eachReached(ctx, commit, map[object.Checksum]struct{}{}, visit); err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}
