package store

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// DropCommonLanes unlinks the lane files of r that no tree uses, though other repositories have them as lanes too: what is pinned has
// the inodes of both stores, and each store's name of a lane keeps the other's. With dryRun it only counts, the others' names too, which
// nothing keeps any more then. A lane that a repository has which is not among the others counts as used.
func DropCommonLanes(ctx context.Context, r *Repo, dryRun bool, others ...*Repo) (Freed, error) {
	var freed Freed
	type inode struct{ dev, number uint64 }
	names := map[inode]uint64{} // how many of its links are lanes
	for _, repo := range append([]*Repo{r}, others...) {
		err := repo.root.eachLane(func(path string) error {
			var st unix.Stat_t
			if lstat(int(repo.root.lanes.Fd()), path, &st) == nil && st.Nlink > 1 {
				names[inode{st.Dev, st.Ino}]++
			}
			return ctx.Err()
		})
		if err != nil {
			return freed, fmt.Errorf("list the lanes of %s: %w", repo.root.path, err)
		}
	}
	err := r.root.eachLane(func(path string) error {
		var st unix.Stat_t
		if lstat(int(r.root.lanes.Fd()), path, &st) != nil || st.Nlink < 2 || uint64(st.Nlink) > names[inode{st.Dev, st.Ino}] {
			return ctx.Err()
		}
		freed.Lanes++
		if dryRun {
			freed.Lanes += int64(st.Nlink) - 1
			freed.Bytes += st.Blocks * 512
			return ctx.Err()
		}
		if err := r.root.disk.remove(int(r.root.lanes.Fd()), path); err != nil && err != unix.ENOENT {
			return placeError("drop lane", path, err)
		}
		return ctx.Err()
	})
	if err != nil {
		return freed, fmt.Errorf("drop lanes: %w", err)
	}
	return freed, nil
}
