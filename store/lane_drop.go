package store

import (
	"errors"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// mapLanes opens an inode list to drop its lanes. One that is missing or damaged is nil: it names none, and Prune finds them.
func mapLanes(list string) (*Inodes, error) {
	l, err := mapInodes(list)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errStale) {
		return nil, nil
	}
	return l, err
}

// dropLanes drops the lanes of an inode list that no tree uses any more.
func (r *root) dropLanes(list string) error {
	l, err := mapLanes(list)
	if l == nil || err != nil {
		return err
	}
	defer l.Close()
	var g errgroup.Group
	for part := range removers {
		g.Go(func() error {
			for i := part * l.filed / removers; i < (part+1)*l.filed/removers; i++ {
				ino, id := l.lane(i)
				if _, err := r.dropLane(id.path(), ino, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// dropLane unlinks a lane file if it has no other link and, unless ino is 0, is that inode. Whoever links it at this
// moment keeps the inode, as one that no later layer shares.
func (r *root) dropLane(path string, ino uint64, freed *Freed) (bool, error) {
	var st unix.Stat_t
	err := lstat(int(r.lanes.Fd()), path, &st)
	if err == nil && (ino != 0 && st.Ino != ino || st.Nlink > 1) {
		return false, nil
	}
	if err == nil && freed != nil {
		freed.Lanes++
		freed.Bytes += st.Blocks * 512
	}
	if err == nil {
		err = r.disk.remove(int(r.lanes.Fd()), path)
	}
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, placeError("drop lane", path, err)
	}
	return true, nil
}

// dropCommon drops the names of lanes that the removed directory used, that no other of this repository does, and that have further links
// from other repositories. Where the object is gone no commit reaches it, so that no tree has its lanes; else the other directories'
// lists are asked. A stage under way may have linked a lane and is in no list: while there is one, the names stay for the next removal,
// or for DropUnusedLanes. One that links a lane at this moment keeps the inode.
func (t *Trash) dropCommon(list string) error {
	r := t.repo.root
	if stages, err := r.list(stagingDir); err != nil || len(stages) > 0 {
		return err
	}
	l, err := mapLanes(list)
	if l == nil || err != nil {
		return err
	}
	defer l.Close()
	doubt := map[uint64]string{}
	for i := range l.filed {
		ino, id := l.lane(i)
		var st unix.Stat_t
		if lstat(int(r.lanes.Fd()), id.path(), &st) != nil || st.Ino != ino {
			continue
		}
		var at unix.Stat_t
		switch err := lstat(int(r.objects.Fd()), objectOf(id), &at); {
		case err == unix.ENOENT:
			if err := r.dropName(id.path(), ino); err != nil {
				return err
			}
		case t.Lists != nil && t.elsewhere(ino, id):
			doubt[ino] = id.path()
		}
	}
	_, err = r.dropUnlisted(doubt, t.Lists)
	return err
}

func objectOf(id laneID) string {
	return object.Name{Checksum: id.sum, Type: object.TypeFile}.LoosePath()
}

// elsewhere tells if another repository has the inode, as an object or as a lane.
func (t *Trash) elsewhere(ino uint64, id laneID) bool {
	for _, o := range t.Beside {
		var st unix.Stat_t
		if lstat(int(o.root.objects.Fd()), objectOf(id), &st) == nil && st.Ino == ino {
			return true
		}
		if o.root.lanes == nil {
			continue
		}
		for id.n = range uint32(8) {
			err := lstat(int(o.root.lanes.Fd()), id.path(), &st)
			if err == nil && st.Ino == ino {
				return true
			}
			if err != nil && id.n > 0 {
				break
			}
		}
	}
	return false
}

// dropUnlisted unlinks lane files, given by their inodes, that are in none of the inode lists, and returns how many. What a list that
// cannot be read has is not known: all stay then, until it is repaired, and nothing fails for it.
func (r *root) dropUnlisted(files map[uint64]string, lists func(visit func(*Inodes) bool) error) (dropped int64, err error) {
	if len(files) == 0 {
		return 0, nil
	}
	err = lists(func(l *Inodes) bool {
		for ino := range files {
			if l.Contains(ino) {
				delete(files, ino)
			}
		}
		return len(files) > 0
	})
	if err != nil {
		return 0, nil
	}
	for ino, path := range files {
		if err := r.dropName(path, ino); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

// dropName unlinks a lane file, whoever else has the inode, if it is still that inode.
func (r *root) dropName(path string, ino uint64) error {
	var st unix.Stat_t
	if lstat(int(r.lanes.Fd()), path, &st) != nil || st.Ino != ino {
		return nil
	}
	if err := r.disk.remove(int(r.lanes.Fd()), path); err != nil && err != unix.ENOENT {
		return placeError("drop lane", path, err)
	}
	return nil
}
