package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Leftover is something that a crash or a killed process left and Recover finished or removed.
type Leftover struct {
	Path string // relative to the repository
	Kind string // "stage", "removal" or "unsynced"
}

// Recover removes stages and finishes removals of earlier boots and of dead processes, and verifies what was published
// without a sync before a reboot. What live processes use is left alone. It costs what was left, and nothing where
// nothing was.
func (r *Repo) Recover(ctx context.Context) ([]Leftover, error) {
	if err := r.root.writable(); err != nil {
		return nil, err
	}
	r.root.tendReserve()
	notes, err := r.root.unsyncedNotes()
	if err != nil {
		return nil, err
	}
	if err := r.root.settleUnsynced(ctx); err != nil {
		return nil, err
	}
	var out []Leftover
	for _, name := range notes {
		if !ofThisBoot(name) {
			out = append(out, Leftover{unsyncedDir + "/" + name, "unsynced"})
		}
	}
	stages, err := r.root.recoverEach(ctx, stagingDir, "stage", func(name string, _ int) error {
		return r.root.dropStage(ctx, name)
	})
	out = append(out, stages...)
	if err != nil {
		return out, err
	}
	removals, err := r.root.recoverEach(ctx, trashDir, "removal", func(name string, lock int) error {
		return r.finishRemoval(ctx, name)
	})
	out = append(out, removals...)
	return out, errors.Join(err, r.root.sweepRefFiles(), r.root.sweepMaking())
}

// making are the names of files that initialize makes and removes again.
var making = regexp.MustCompile(`^(\.probe-[0-9a-f]{16}l?|config\.[0-9a-f]{16})$`)

// sweepMaking removes what a crash left of the making of the repository. Who is still at it finds that it is done.
func (r *root) sweepMaking() error {
	for _, dir := range []string{".", extensionDir} {
		names, err := r.list(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !making.MatchString(name) {
				continue
			}
			if err := r.disk.remove(r.fd(), dir+"/"+name); err != nil && err != unix.ENOENT {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}

// recoverEach calls finish for every directory in parent whose lock nobody holds, while it holds it itself.
func (r *root) recoverEach(ctx context.Context, parent, kind string, finish func(name string, lock int) error) ([]Leftover, error) {
	names, err := r.list(parent)
	var out []Leftover
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		path := parent + "/" + name
		if is, removed := r.unlocked(path, name); is {
			if removed {
				out = append(out, Leftover{path, kind})
			}
			continue
		}
		lock, err := r.tryAcquire(path+"/"+stageLock, unix.F_WRLCK)
		if err == unix.EAGAIN || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // alive, or just finished, or nothing of ours
		}
		if err != nil {
			return out, err
		}
		err = finish(name, lock)
		unix.Close(lock)
		if err != nil {
			return out, fmt.Errorf("recover %s: %w", path, err)
		}
		out = append(out, Leftover{path, kind})
	}
	return out, err
}

// unlocked deals with a directory of this boot that has no lock file: it was just made, and its owner is about to lock it,
// or it is the last that is left of a removal. Nobody but the owner may make the file, or the owner could find it free
// just when the directory goes. But an empty directory may go: an owner makes another one then.
func (r *root) unlocked(path, name string) (is, removed bool) {
	var st unix.Stat_t
	if !ofThisBoot(name) || lstat(r.fd(), path+"/"+stageLock, &st) != unix.ENOENT {
		return false, false
	}
	return true, r.disk.removeDir(r.fd(), path) == nil
}

// list returns the sorted names in a directory of the repository.
func (r *root) list(path string) ([]string, error) {
	fd, err := openDir(r.fd(), path)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// finishRemoval does what is left of a removal; one that had not moved its directory yet is given up. The caller holds
// its lock.
func (r *Repo) finishRemoval(ctx context.Context, name string) error {
	t := &Trash{repo: r, name: name, lock: -1}
	names, err := t.names()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	begun := slices.ContainsFunc(names, func(n string) bool {
		return n == trashDirIn || n == inodesName || strings.HasPrefix(n, trashCommit)
	})
	if !begun {
		return r.root.removeAll(trashDir, name)
	}
	if err := r.root.withRoom(t.moveRefs); err != nil {
		return err
	}
	return r.root.withRoom(func() error { return t.remove(ctx) })
}

// staleRefFile is the age of a ref's file under tmp/ from which nobody is about to rename it.
const staleRefFile = time.Hour

// sweepRefFiles removes ref files that never got their name.
func (r *root) sweepRefFiles() error {
	names, err := r.list("tmp")
	for _, name := range names {
		var st unix.Stat_t
		path := "tmp/" + name
		if !strings.HasPrefix(name, "ref-") || lstat(r.fd(), path, &st) != nil ||
			time.Since(time.Unix(st.Ctim.Sec, 0)) < staleRefFile {
			continue
		}
		if err := r.disk.remove(r.fd(), path); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	return err
}
