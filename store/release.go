package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Freed is what a removal gave back.
type Freed struct {
	Objects int64 // how many objects were deleted
	Lanes   int64 // how many lanes besides
	Bytes   int64 // blocks of inodes that had no other name
}

// add counts what else was given back. Nobody may want to know: f is nil then.
func (f *Freed) add(o Freed) {
	if f != nil {
		f.Objects += o.Objects
		f.Bytes += o.Bytes
	}
}

// Release deletes the objects that the given commits reach and that no ref reaches any more. Commits that are not there
// are no error. If the process dies meanwhile, Recover goes on.
func (r *Repo) Release(ctx context.Context, commits ...object.Checksum) (Freed, error) {
	if err := r.root.writable(); err != nil {
		return Freed{}, err
	}
	t, err := r.newTrash()
	if err != nil {
		return Freed{}, fmt.Errorf("release: %w", err)
	}
	defer t.unlock()
	for i, c := range commits {
		if err := r.root.writeRef(r.root.fd(), t.path(trashCommit+strconv.Itoa(i)), c, later); err != nil {
			return Freed{}, fmt.Errorf("release %s: %w", c, err)
		}
	}
	t.freed = new(Freed)
	if err := t.remove(ctx); err != nil {
		return *t.freed, fmt.Errorf("release: %w", err)
	}
	return *t.freed, nil
}

// release deletes the commits' objects. What says which these are stays until the last of them is gone: the commit itself
// is moved to the directory aside before anything that it needs goes, and each dirtree outlives what it names.
func (r *root) release(ctx context.Context, aside string, commits []object.Checksum, freed *Freed) error {
	m := r.newMarker()
	m.asks, m.going = true, r.going(aside, commits)
	seen := map[object.Checksum]struct{}{}
	for _, c := range commits {
		n := object.Name{Checksum: c, Type: object.TypeCommit}
		commit := new(object.Commit)
		err := r.readMetadata(int(r.objects.Fd()), n.LoosePath(), n, commit)
		if isMissing(err) {
			err = r.readMetadata(r.fd(), aside+"/"+n.String(), n, commit)
		}
		if isMissing(err) {
			continue
		}
		if err == nil {
			m.add(n)
			err = r.eachReached(ctx, commit, seen, m.add)
		}
		if err != nil && !isCorrupt(err) { // what only a damaged tree names is left for Prune
			return fmt.Errorf("release %s: %w", c, err)
		}
	}
	return r.releaseMarked(ctx, m, commits, aside, freed)
}

// going counts the names in the directory aside of each commit's counted refs.
func (r *root) going(aside string, commits []object.Checksum) map[object.Checksum]int {
	names, err := r.list(aside)
	if err != nil {
		return nil
	}
	inos := map[uint64]int{}
	for _, name := range names {
		var st unix.Stat_t
		if strings.HasPrefix(name, trashCommit) && lstat(r.fd(), aside+"/"+name, &st) == nil {
			inos[st.Ino]++
		}
	}
	out := map[object.Checksum]int{}
	for _, c := range commits {
		ino, _ := r.countedNames(c)
		out[c] = inos[ino]
	}
	return out
}

// releaseMarked deletes the marker's candidates and the commits.
func (r *root) releaseMarked(ctx context.Context, m *marker, commits []object.Checksum, aside string, freed *Freed) error {
	err := r.setAside(ctx, m, commits, aside, freed)
	if err == nil {
		err = r.sweep(ctx, m, aside, freed)
	}
	var damaged *index.DamagedError
	if errors.As(err, &damaged) {
		m.walk()
		err = r.sweep(ctx, m, aside, freed)
	}
	if err != nil {
		return err
	}
	r.compact()
	return nil
}

// setAside takes the commits that no ref names out of the repository and out of the index, before anybody asks that what
// else is garbage: of two removals at once that share an object, the one that asks last finds that nothing has it.
func (r *root) setAside(ctx context.Context, m *marker, commits []object.Checksum, aside string, freed *Freed) error {
	if err := r.seal(ctx); err != nil {
		return err
	}
	if err := m.look(ctx); err != nil {
		return err
	}
	unlock, err := r.lockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.look(ctx); err != nil {
		return err
	}
	for _, c := range commits {
		if m.named(c) {
			continue
		}
		n := object.Name{Checksum: c, Type: object.TypeCommit}
		if err := r.deleteObject(n, aside, freed); err != nil {
			return err
		}
		delete(m.want, n)
		if err := r.withIndex(func(x *index.Index) error { return x.Forget(c) }); err != nil {
			return err
		}
	}
	if m.going != nil {
		m.going = map[object.Checksum]int{} // whether a ref names them was the question, and not what others came since
	}
	return nil
}

// sweep deletes what is garbage among the marker's candidates. It looks at all refs before it takes the lock, and under
// the lock only at those that came since. The index is asked under the lock alone: it must hold still meanwhile.
func (r *root) sweep(ctx context.Context, m *marker, aside string, freed *Freed) error {
	if len(m.want) == 0 {
		return nil
	}
	if err := m.look(ctx); err != nil {
		return err
	}
	order := m.deletionOrder()
	for len(order) > 0 {
		n, err := r.sweepBatch(ctx, m, order, aside, freed)
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
// and fsck of libostree for the whole repository; dirtrees last, each after those that it names. Files stay in the order of
// the trees, in which their inodes lie together, or go directory by directory.
func (m *marker) deletionOrder() []object.Name {
	var commits, files, trees []object.Name
	for _, n := range m.order {
		switch {
		case !m.garbage(n):
		case n.Type == object.TypeCommit:
			commits = append(commits, n)
		case n.Type == object.TypeDirTree:
			trees = append(trees, n)
		default:
			files = append(files, n)
		}
	}
	slices.Reverse(trees)
	if m.r.oneTree() {
		slices.SortStableFunc(files, func(a, b object.Name) int { return cmp.Compare(a.Checksum[0], b.Checksum[0]) })
	}
	return slices.Concat(commits, files, trees)
}

// sweepBatch deletes under the exclusive lock for as long as that may be held, and returns how far it came.
func (r *root) sweepBatch(ctx context.Context, m *marker, order []object.Name, aside string,
	freed *Freed) (int, error) {
	unlock, err := r.lockExclusive(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	begin := time.Now()
	if err := m.refresh(ctx); err != nil {
		return 0, err
	}
	done := 0
	for done < len(order) && (done == 0 || time.Since(begin) < maxExclusive) {
		n := min(len(order)-done, sweepChunk)
		if i := slices.IndexFunc(order[done:done+n], inOrder); i >= 0 {
			n = max(i, 1)
		}
		if err := r.sweepSome(m, order[done:done+n], aside, freed); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// inOrder tells if an object has its place in the deletion order and goes alone.
func inOrder(n object.Name) bool { return n.Type == object.TypeDirTree || n.Type == object.TypeCommit }

// sweepChunk is how many objects are deleted between two looks at the clock.
const sweepChunk = 256

// oneTree tells if the filesystem keeps all names and inodes in one tree, as btrfs does. To delete an item it locks that tree's root: two
// goroutines mostly wake each other. And it deletes some names of a directory later, those that lie side by side at once.
func (r *root) oneTree() bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(r.fd(), &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC
}

// sweepSome deletes objects that need no order among them, as several goroutines that each take a part.
func (r *root) sweepSome(m *marker, names []object.Name, aside string, freed *Freed) error {
	if len(names) == 1 || r.oneTree() {
		return r.sweepPart(m, names, aside, freed)
	}
	var parts [removers]*Freed
	var g errgroup.Group
	size := (len(names) + removers - 1) / removers
	for i := range parts {
		if freed != nil {
			parts[i] = new(Freed)
		}
		part := names[min(i*size, len(names)):min((i+1)*size, len(names))]
		g.Go(func() error { return r.sweepPart(m, part, aside, parts[i]) })
	}
	err := g.Wait()
	for _, p := range parts {
		if p != nil {
			freed.add(*p)
		}
	}
	return err
}

func (r *root) sweepPart(m *marker, names []object.Name, aside string, freed *Freed) error {
	for _, n := range names {
		if !m.garbage(n) {
			continue
		}
		if err := r.deleteObject(n, aside, freed); err != nil {
			return err
		}
	}
	return nil
}

// deleteObject unlinks an object. A commit goes with what belongs to it, and is moved to the directory aside, if one is
// given.
func (r *root) deleteObject(n object.Name, aside string, freed *Freed) error {
	path, objects := n.LoosePath(), int(r.objects.Fd())
	if n.Type != object.TypeCommit {
		return r.deleteFile(objects, path, freed)
	}
	if err := r.deleteFile(objects, path+"meta", nil); err != nil {
		return err
	}
	if err := r.deleteFile(r.fd(), "state/"+n.Checksum.String()+".commitpartial", nil); err != nil {
		return err
	}
	if aside == "" {
		return r.deleteFile(objects, path, freed)
	}
	switch err := r.disk.rename(objects, path, r.fd(), aside+"/"+n.String()); err {
	case nil:
		freed.add(Freed{Objects: 1})
	case unix.ENOENT:
	default:
		return placeError("delete", path, err)
	}
	return nil
}

// deleteFile unlinks a file if it is there, and counts what that frees.
func (r *root) deleteFile(dir int, name string, freed *Freed) error {
	var st unix.Stat_t
	var err error
	if freed != nil {
		err = lstat(dir, name, &st)
	}
	if err == nil {
		err = r.disk.remove(dir, name)
	}
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return placeError("delete", name, err)
	}
	gone := Freed{Objects: 1}
	if st.Nlink == 1 {
		gone.Bytes = st.Blocks * 512
	}
	freed.add(gone)
	return nil
}
