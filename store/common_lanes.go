package store

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// DropUnusedLanes unlinks the lane files of r that none of the given inode lists has, though the inodes have other links: what is pinned
// has the inodes of several stores, and each store's name of a lane keeps the others'. lists visits the lists of all directories that are
// made from r. Those of checkouts with labels, which are in no list, stay, and so does all while a stage is under way.
func DropUnusedLanes(ctx context.Context, r *Repo, lists func(visit func(*Inodes) bool) error) (Freed, error) {
	var freed Freed
	if stages, err := r.root.list(stagingDir); err != nil || len(stages) > 0 {
		return freed, err
	}
	unused := map[uint64]string{}
	err := r.root.eachLane(func(path string) error {
		var st unix.Stat_t
		id, err := parseLane(path)
		if err == nil && id.label == (laneID{}).label && lstat(int(r.root.lanes.Fd()), path, &st) == nil && st.Nlink > 1 {
			unused[st.Ino] = path
		}
		return ctx.Err()
	})
	if err != nil {
		return freed, fmt.Errorf("list the lanes of %s: %w", r.root.path, err)
	}
	freed.Lanes, err = r.root.dropUnlisted(unused, lists)
	return freed, err
}

// CommonLanes counts the lane files that only r and the others have, of all of them, and their bytes: what is gone when each of them has
// dropped what it does not use. A lane that a repository has which is not among the others counts as used.
func CommonLanes(ctx context.Context, r *Repo, others ...*Repo) (Freed, error) {
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
		freed.Lanes += int64(st.Nlink)
		freed.Bytes += st.Blocks * 512
		return ctx.Err()
	})
	if err != nil {
		return freed, fmt.Errorf("count lanes: %w", err)
	}
	return freed, nil
}
