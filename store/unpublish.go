package store

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// dropStage removes a stage, and with it what it published if that never got its final name. The caller holds the stage's
// lock. It may be called again for what a crash left of it.
func (r *root) dropStage(ctx context.Context, name string) error {
	ref := stagingDir + "/" + name + "/" + stageObjects + "/" + stagedRefFile
	unlock, _ := r.lockForRefs()
	err := r.disk.rename(int(r.heads.Fd()), stagedRefs+name, r.fd(), ref)
	unlock()
	switch err {
	case nil:
		if err := r.bump(); err != nil {
			return err
		}
	case unix.ENOENT:
	default:
		return placeError("drop ref", stagedRefs+name, err)
	}
	var st unix.Stat_t
	switch err := lstat(r.fd(), ref, &st); err {
	case nil: // Publish was begun
		if err := r.unpublish(ctx, name); err != nil {
			return fmt.Errorf("undo what stage %s published: %w", name, err)
		}
	case unix.ENOENT:
	default:
		return placeError("look for", ref, err)
	}
	if err := r.removeAll(stagingDir, name); err != nil {
		return fmt.Errorf("remove stage: %w", err)
	}
	return nil
}

// unpublish deletes what a stage linked into the repository and no ref reaches: objects, and lanes once its tree is gone.
// What it was is known from the metadata in .objects, which stays until the end.
func (r *root) unpublish(ctx context.Context, name string) error {
	top := stagingDir + "/" + name
	entries, err := r.list(top)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e != stageObjects && e != stageLock && !isObject(e) {
			if err := r.removeAny(top, e); err != nil {
				return err
			}
		}
	}
	m := r.newMarker()
	m.asks = true
	commits, err := r.staged(top+"/"+stageObjects, m)
	if err != nil {
		return err
	}
	if err := r.dropLanesOf(m); err != nil {
		return err
	}
	return r.releaseMarked(ctx, m, commits, top, nil)
}

func isObject(name string) bool {
	_, err := object.ParseName(name)
	return err == nil
}

// removeAny deletes a directory with its content, or a file.
func (r *root) removeAny(parent, name string) error {
	var st unix.Stat_t
	path := parent + "/" + name
	err := lstat(r.fd(), path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return r.removeAll(parent, name)
	}
	if err == nil {
		err = r.disk.remove(r.fd(), path)
	}
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// staged adds all objects that are in .objects, or that a dirtree there names, to the marker, and returns the commits.
func (r *root) staged(dir string, m *marker) (commits []object.Checksum, err error) {
	names, err := r.list(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, err := object.ParseName(name)
		if err != nil {
			continue
		}
		m.add(n)
		switch n.Type {
		case object.TypeCommit:
			commits = append(commits, n.Checksum)
		case object.TypeDirTree:
			tree := new(object.DirTree)
			err := r.readMetadata(r.fd(), dir+"/"+name, n, tree)
			if isCorrupt(err) {
				continue // never synced, so nothing of it was published
			}
			if err != nil {
				return nil, err
			}
			for _, f := range tree.Files {
				m.add(object.Name{Checksum: f.Checksum, Type: object.TypeFile})
			}
		}
	}
	return commits, nil
}

// dropLanesOf drops the unused lanes of the marker's files. It lists the lanes of the whole repository, which is
// acceptable for what only a crash or a full disk brings about.
func (r *root) dropLanesOf(m *marker) error {
	return r.eachLane(func(path string) error {
		id, err := parseLane(path)
		if err != nil || !m.garbage(object.Name{Checksum: id.sum, Type: object.TypeFile}) {
			return nil
		}
		_, err = r.dropLane(path, 0, nil)
		return err
	})
}
