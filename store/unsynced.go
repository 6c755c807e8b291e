package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// What is published without a sync is noted first, in a file extensions/ostree-storage/unsynced/<boot id>-<random> with
// one object name a line, which itself is synced: one small write a layer. A later syncfs of the same boot removes the
// note. A note of another boot names objects that may be torn; each is read and compared before this process stages
// anything, and goes if it is damaged.

// noteUnsynced writes a note.
func (r *root) noteUnsynced(names []object.Name) error {
	if len(names) == 0 {
		return nil
	}
	name, err := freshName()
	if err != nil {
		return err
	}
	path := unsyncedDir + "/" + name
	if err := r.makeDirs(path); err != nil {
		return err
	}
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n.String() + "\n")
	}
	fd, err := r.disk.create(r.fd(), path, 0o600)
	if err != nil {
		return fmt.Errorf("note unsynced objects: %w", err)
	}
	err = writeAll(fd, []byte(b.String()), 0)
	if err == nil {
		err = r.disk.sync(fd)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("note unsynced objects: %w", err)
	}
	return nil
}

// unsyncedNotes lists the notes of all boots.
func (r *root) unsyncedNotes() ([]string, error) {
	fd, err := openDir(r.fd(), unsyncedDir)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list unsynced objects: %w", err)
	}
	d := os.NewFile(uintptr(fd), unsyncedDir)
	defer d.Close()
	return d.Readdirnames(-1)
}

// settleUnsynced verifies what earlier boots noted. Two processes that do it at once do it twice, to the same end.
func (r *root) settleUnsynced(ctx context.Context) error {
	notes, err := r.unsyncedNotes()
	if err != nil {
		return err
	}
	for _, name := range notes {
		if ofThisBoot(name) {
			continue
		}
		path := unsyncedDir + "/" + name
		text, err := readAt(r.fd(), path)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("read note of unsynced objects: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			n, err := object.ParseName(strings.TrimSuffix(line, "\n"))
			if err != nil { // the note itself is torn: its sync failed, and nothing was published after it
				break
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.settleObject(ctx, n); err != nil {
				return fmt.Errorf("verify %s: %w", n, err)
			}
		}
		if err := r.disk.remove(r.fd(), path); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove note of unsynced objects: %w", err)
		}
	}
	return nil
}

// settleObject deletes an object, and each of its lanes, that is not what its name says.
func (r *root) settleObject(ctx context.Context, n object.Name) error {
	if torn, err := r.torn(n); err != nil {
		return err
	} else if torn {
		if err := r.dropTorn(ctx, n); err != nil {
			return err
		}
	}
	if n.Type != object.TypeFile {
		return nil
	}
	lanes, err := r.lanesOf(n.Checksum)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		reason, err := r.verifyLane(l)
		if err == nil && reason != "" {
			err = r.disk.remove(int(r.lanes.Fd()), l.path())
		}
		if err != nil && err != unix.ENOENT {
			return err
		}
	}
	return nil
}

// torn tells if an object is there and is not what its name says.
func (r *root) torn(n object.Name) (bool, error) {
	reason, err := r.verify(int(r.objects.Fd()), n.LoosePath(), n)
	if err == unix.ENOENT {
		return false, nil
	}
	return reason != "", err
}

// dropTorn looks again under the lock, since another process may have put a good one there, and deletes the object.
func (r *root) dropTorn(ctx context.Context, n object.Name) error {
	unlock, err := r.lockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	torn, err := r.torn(n)
	if err != nil || !torn {
		return err
	}
	return r.deleteFile(int(r.objects.Fd()), n.LoosePath(), nil)
}

// lanesOf lists the lane files of one object.
func (r *root) lanesOf(c object.Checksum) ([]laneID, error) {
	xx := hexByte(c[0])
	fd, err := openDir(int(r.lanes.Fd()), xx)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "list lanes", Path: xx, Err: err}
	}
	d := os.NewFile(uintptr(fd), xx)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []laneID
	for _, name := range names {
		if l, err := parseLane(xx + "/" + name); err == nil && l.sum == c {
			out = append(out, l)
		}
	}
	return out, nil
}
