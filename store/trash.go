package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A removal is a directory trash/<boot id>-<random> with
//
//	.lock       held by the process that removes
//	ref.<i>     a symlink to nowhere: its target is the name of a ref that goes with the directory
//	dir         what is removed; from the moment that it is here the removal will be finished, if need be by Recover
//	<object>    a commit, moved here before what it reaches is deleted
//	commit.<i>  the file of ref.<i>, moved here: it says what Release has to look at
//	inodes      the directory's inode list, which says what lanes to drop
//
// Everything is a rename, a link or a name, so that filesystems that order these keep the order after a power cut too.
const (
	trashRef    = "ref."
	trashDirIn  = "dir"
	trashCommit = "commit."
	inodesName  = "inodes" // of the inode list in a directory that is removed
)

// A Trash is a directory on its way out.
type Trash struct {
	repo *Repo
	name string
	lock int

	// Beside are repositories that may have lanes of this one as theirs, and Lists visits the inode lists of all directories that are
	// left, until visit returns false. Without them the name of a lane that another repository has too, and whose object stays, is left
	// to DropUnusedLanes.
	Beside []*Repo
	Lists  func(visit func(*Inodes) bool) error

	freed *Freed // what is counted, or nil
}

// MoveToTrash starts a removal that a crash cannot lose: it moves the directory name of oldParent aside and deletes the
// refs that are given, all in O(1). What is left to do is in Remove; if the process dies before, Recover does it. The
// directory's inode list, if it has one, is called inodes.
func (r *Repo) MoveToTrash(oldParent *os.File, name string, refs ...string) (*Trash, error) {
	at := r.root
	err := at.writable()
	for _, ref := range refs {
		err = errors.Join(err, checkRef(ref))
	}
	if err != nil {
		return nil, err
	}
	var t *Trash
	err = at.withRoom(func() (err error) {
		if t, err = r.newTrash(); err != nil {
			return err
		}
		if err = t.fill(int(oldParent.Fd()), name, refs); err != nil {
			t.abandon()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("move %s to the trash: %w", name, err)
	}
	if err = at.withRoom(t.moveRefs); err != nil {
		t.unlock()
		return nil, fmt.Errorf("move %s to the trash: %w", name, err)
	}
	return t, nil
}

func (t *Trash) path(name string) string { return trashDir + "/" + t.name + "/" + name }

// newTrash makes an empty removal and locks it.
func (r *Repo) newTrash() (*Trash, error) {
	t := &Trash{repo: r, lock: -1}
	for {
		var err error
		if t.name, err = freshName(); err != nil {
			return nil, err
		}
		t.lock, err = r.root.lockedDir(trashDir + "/" + t.name)
		if !errors.Is(err, errTaken) {
			return t, err
		}
	}
}

// fill notes the refs and moves the directory into the removal.
func (t *Trash) fill(parent int, name string, refs []string) error {
	at := t.repo.root
	for i, ref := range refs {
		if err := at.disk.symlink(ref, at.fd(), t.path(trashRef+strconv.Itoa(i))); err != nil {
			return err
		}
	}
	if err := at.disk.rename(parent, name, at.fd(), t.path(trashDirIn)); err != nil {
		return placeError("rename", name, err)
	}
	return nil
}

// abandon gives up a removal that has not begun.
func (t *Trash) abandon() {
	t.repo.root.removeAll(trashDir, t.name)
	t.unlock()
}

func (t *Trash) unlock() {
	if t.lock >= 0 {
		unix.Close(t.lock)
		t.lock = -1
	}
}

// moveRefs moves the refs that go with the directory into the removal.
func (t *Trash) moveRefs() error {
	at := t.repo.root
	names, err := t.names()
	if err != nil {
		return err
	}
	unlock, locked := at.lockForRefs()
	defer unlock()
	moved := false
	for _, name := range names {
		i, ok := strings.CutPrefix(name, trashRef)
		if !ok {
			continue
		}
		ref, err := readTarget(at.fd(), t.path(name))
		if err != nil {
			return &os.PathError{Op: "read", Path: t.path(name), Err: err}
		}
		if err := checkRef(ref); err != nil {
			return err
		}
		err = at.changeRef(ref, locked, func() error {
			return at.disk.rename(int(at.heads.Fd()), ref, at.fd(), t.path(trashCommit+i))
		})
		if err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
			return placeError("move ref", ref, err)
		}
		moved = true
	}
	if !moved {
		return nil
	}
	return at.bump()
}

func (t *Trash) names() ([]string, error) {
	at := t.repo.root
	fd, err := openDir(at.fd(), trashDir+"/"+t.name)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: t.name, Err: err}
	}
	defer unix.Close(fd)
	entries, err := readDir(fd)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// Path returns where the directory is now.
func (t *Trash) Path() string { return t.repo.root.path + "/" + t.path(trashDirIn) }

// Remove deletes the directory's content, drops the lanes that its inode list names and nothing else uses, releases the
// commits that the refs named, and forgets the removal. After an error Recover tries again.
func (t *Trash) Remove() error {
	defer t.unlock()
	err := t.repo.root.withRoom(func() error { return t.remove(context.Background()) })
	if err != nil {
		return fmt.Errorf("remove %s: %w", t.path(trashDirIn), err)
	}
	return nil
}

// remove takes the names of objects first and the directory's last: an inode is freed with its last name, which takes longest, and for
// those in the directory no lock is held.
func (t *Trash) remove(ctx context.Context) error {
	at := t.repo.root
	err := at.disk.rename(at.fd(), t.path(trashDirIn)+"/"+inodesName, at.fd(), t.path(inodesName))
	if err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
		return err
	}
	released := t.release(ctx)
	if err := at.removeAll(trashDir+"/"+t.name, trashDirIn); err != nil { // whatever keeps the objects
		return errors.Join(released, err)
	}
	if err := at.dropLanes(at.path + "/" + t.path(inodesName)); err != nil {
		return errors.Join(released, err)
	}
	if isFull(released) { // there is room now
		released = t.release(ctx)
	}
	if released != nil {
		return released
	}
	if err := t.dropCommon(at.path + "/" + t.path(inodesName)); err != nil {
		return err
	}
	return at.removeAll(trashDir, t.name)
}

// release deletes the objects of the refs' commits.
func (t *Trash) release(ctx context.Context) error {
	commits, err := t.commits()
	if err != nil || len(commits) == 0 { // a container's layer has none: all refs need not be looked at for it
		return err
	}
	return t.repo.root.release(ctx, trashDir+"/"+t.name, commits, t.freed)
}

// commits reads what the moved refs named. A ref that was torn before says nothing; Prune finds what it meant.
func (t *Trash) commits() ([]object.Checksum, error) {
	names, err := t.names()
	if err != nil {
		return nil, err
	}
	var out []object.Checksum
	for _, name := range names {
		if !strings.HasPrefix(name, trashCommit) {
			continue
		}
		if c, err := t.repo.root.parseRef(t.path(name)); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}
