package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// reach looks for what commits need and the repository lacks. As ostree fsck does, it looks at every commit that is
// there, whether a ref names it or not.
func (x *check) reach(ctx context.Context) error {
	seen := map[object.Checksum]struct{}{}
	missed := map[object.Name]struct{}{}
	for c := range x.commits {
		if x.partial(c) {
			continue
		}
		commit, err := (&Objects{x.r}).ReadCommit(c)
		if isMissing(err) || isCorrupt(err) {
			continue // pruned meanwhile, or reported already
		}
		if err != nil {
			return err
		}
		var over error
		err = x.r.eachReached(ctx, commit, seen, func(n object.Name) {
			if _, ok := x.present[n]; ok || over != nil {
				return
			}
			if _, ok := missed[n]; ok {
				return
			}
			missed[n] = struct{}{}
			over = x.add(Finding{
				Kind: Missing, Object: n, Path: "objects/" + n.LoosePath(), Reason: "commit " + c.String() + " reaches it",
			})
		})
		if err = errors.Join(over, err); err != nil && !isCorrupt(err) {
			return err
		}
	}
	return nil
}

// partial tells if a commit is marked as one whose trees need not be there.
func (x *check) partial(c object.Checksum) bool {
	var st unix.Stat_t
	return lstat(x.r.fd(), "state/"+c.String()+".commitpartial", &st) == nil
}

// refs looks for refs that lead nowhere.
func (x *check) refs() error {
	for _, top := range rootDirs {
		err := x.r.walkRefs(top, nil, func(p string, c object.Checksum, err error) error {
			reason := x.refReason(c, err)
			if reason == "" {
				return nil
			}
			return x.add(Finding{
				Kind: BadRef, Object: object.Name{Checksum: c, Type: object.TypeCommit}, Path: p, Reason: reason,
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *check) refReason(c object.Checksum, err error) string {
	if err != nil {
		return err.Error()
	}
	n := object.Name{Checksum: c, Type: object.TypeCommit}
	ok, err := (&Objects{x.r}).Has(n)
	if err != nil {
		return err.Error()
	}
	if !ok {
		return "commit " + c.String() + " is missing"
	}
	return ""
}

// confirm looks at all findings again while nothing can be deleted, and says which refs they hurt.
func (x *check) confirm(ctx context.Context) error {
	if len(x.found) == 0 {
		return nil
	}
	if !x.r.readOnly {
		unlock, err := x.r.lockShared(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	hurt := map[object.Name][]string{}
	for _, f := range x.found {
		if f.Kind == Missing || f.Kind == Corrupt || f.Kind == BadLane {
			hurt[f.Object] = nil
		}
	}
	if err := x.hurt(ctx, hurt); err != nil {
		return err
	}
	x.found = slices.DeleteFunc(x.found, func(f Finding) bool { return !x.still(f, hurt) })
	for i := range x.found {
		x.found[i].Refs = hurt[x.found[i].Object]
	}
	slices.SortFunc(x.found, func(a, b Finding) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return nil
}

// still tells if a finding holds.
func (x *check) still(f Finding, hurt map[object.Name][]string) bool {
	switch f.Kind {
	case Missing:
		// Without a ref it is a commit on its way out, or an orphan. An orphan that stays is a finding: it stops prune.
		ok, err := (&Objects{x.r}).Has(f.Object)
		return err == nil && !ok && (len(hurt[f.Object]) > 0 || x.orphan(f.Object))
	case Index:
		reason, err := x.indexReason(context.Background(), f)
		return err != nil || reason != ""
	case Corrupt:
		reason, err := x.verify(f.Object)
		return err != unix.ENOENT && (err != nil || reason != "")
	case BadLane:
		l, err := parseLane(f.Path[len(lanesDir)+1:])
		return err == nil && x.laneReason(l) != ""
	case BadRef:
		c, err := x.r.readRef(f.Path)
		if errors.Is(err, fs.ErrNotExist) && x.r.refGone(f.Path) {
			return false
		}
		return x.refReason(c, err) != ""
	}
	var st unix.Stat_t
	return lstat(x.r.fd(), f.Path, &st) == nil
}

// orphan tells if a commit without a ref reaches the object.
func (x *check) orphan(n object.Name) bool {
	for c := range x.commits {
		if x.partial(c) {
			continue
		}
		if x.reaches(context.Background(), c, n) {
			return true
		}
	}
	return false
}

func (x *check) reaches(ctx context.Context, c object.Checksum, n object.Name) bool {
	commit, err := (&Objects{x.r}).ReadCommit(c)
	if err != nil {
		return false
	}
	found := false
	x.r.eachReached(ctx, commit, map[object.Checksum]struct{}{}, func(m object.Name) { found = found || m == n })
	return found
}

// hurt fills in which refs reach the objects.
func (x *check) hurt(ctx context.Context, objects map[object.Name][]string) error {
	if len(objects) == 0 {
		return nil
	}
	for _, top := range rootDirs {
		err := x.r.walkRefs(top, nil, func(p string, c object.Checksum, err error) error {
			if err != nil {
				return nil // reported as a ref
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			note := func(n object.Name) {
				if refs, ok := objects[n]; ok && !slices.Contains(refs, p) {
					objects[n] = append(refs, p)
				}
			}
			note(object.Name{Checksum: c, Type: object.TypeCommit})
			commit, err := (&Objects{x.r}).ReadCommit(c)
			if err != nil {
				return nil
			}
			err = x.r.eachReached(ctx, commit, map[object.Checksum]struct{}{}, note)
			if isCorrupt(err) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
