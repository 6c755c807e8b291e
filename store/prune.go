package store

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Prune deletes every object that no ref reaches, lanes that no tree uses, and what dead processes left behind. With
// dryRun it only counts.
func (r *Repo) Prune(ctx context.Context, dryRun bool) (Freed, error) {
	var freed Freed
	at := r.root
	if !dryRun {
		if _, err := r.Recover(ctx); err != nil {
			return freed, err
		}
	}
	m := at.newMarker()
	err := at.eachObject(func(path string) error {
		if n, err := object.ParseLoosePath(path); err == nil {
			m.add(n)
		}
		return ctx.Err()
	})
	if err != nil {
		return freed, fmt.Errorf("prune: %w", err)
	}
	if dryRun {
		err = at.countGarbage(ctx, m, &freed)
	} else if err = at.forgetGarbage(ctx, m); err == nil {
		err = at.sweep(ctx, m, "", &freed)
	}
	if err == nil && !dryRun {
		err = r.reindex(ctx, m)
	}
	if err != nil {
		return freed, fmt.Errorf("prune: %w", err)
	}
	err = at.eachLane(func(path string) error {
		var st unix.Stat_t
		if !dryRun {
			_, err := at.dropLane(path, 0, &freed)
			return err
		}
		if lstat(int(at.lanes.Fd()), path, &st) == nil && st.Nlink == 1 {
			freed.Lanes++
			freed.Bytes += st.Blocks * 512
		}
		return ctx.Err()
	})
	if err != nil {
		return freed, fmt.Errorf("prune lanes: %w", err)
	}
	return freed, nil
}

// forgetGarbage takes the commits that no ref names out of the index before their objects go: if the process dies meanwhile,
// the index counts nothing that is not there.
func (r *root) forgetGarbage(ctx context.Context, m *marker) error {
	if err := m.look(ctx); err != nil {
		return err
	}
	if err := r.forgetUnnamed(ctx, m, nil); err != nil && !isDamagedIndex(err) { // a damaged one is made anew later
		return err
	}
	return nil
}

func (r *root) countGarbage(ctx context.Context, m *marker, freed *Freed) error {
	if err := m.refresh(ctx); err != nil {
		return err
	}
	for n := range m.want {
		var st unix.Stat_t
		if lstat(int(r.objects.Fd()), n.LoosePath(), &st) != nil {
			continue
		}
		freed.Objects++
		if st.Nlink == 1 {
			freed.Bytes += st.Blocks * 512
		}
	}
	return nil
}

// eachObject visits the files in objects/xx, by their paths below objects.
func (r *root) eachObject(visit func(path string) error) error {
	return eachHashed(int(r.objects.Fd()), visit)
}

// eachLane visits the lane files, by their paths below lanesDir.
func (r *root) eachLane(visit func(path string) error) error {
	if r.lanes == nil {
		return nil
	}
	return eachHashed(int(r.lanes.Fd()), visit)
}

// eachHashed visits the files in the directories 00 to ff.
func eachHashed(top int, visit func(path string) error) error {
	for i := range 256 {
		xx := hexByte(byte(i))
		fd, err := openDir(top, xx)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: xx, Err: err}
		}
		d := os.NewFile(uintptr(fd), xx)
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			return &os.PathError{Op: "list", Path: xx, Err: err}
		}
		for _, name := range names {
			if err := visit(xx + "/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}
