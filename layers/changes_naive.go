package layers

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// NaiveOptions says how owners in the two trees of NaiveChanges are compared.
type NaiveOptions struct {
	NewUIDs, NewGIDs []IDMap // mappings of newDir's owners
	OldUIDs, OldGIDs []IDMap // mappings of oldDir's owners
	// SharedTimes says that linked files may show others' times (mtime=shared): files of two inodes are read where their
	// times do not tell.
	SharedTimes bool
}

// NaiveChanges compares two merged trees, entry by entry, as containers/storage does for two layers that are not parent
// and child: by type, mode, owner, device number, size, time, symlink target, capability and user attributes, never by content
// unless o.SharedTimes says so.
// With oldDir "", all of newDir is new. The list is in the order of a walk: a directory comes before its content.
// What containers/storage calls a deletion inside a directory that a block device or socket replaced is not listed.
func NaiveChanges(newDir, oldDir string, o NaiveOptions) ([]Change, error) {
	n := &naiveWalk{
		newIDs: idMaps{uids: o.NewUIDs, gids: o.NewGIDs}, oldIDs: idMaps{uids: o.OldUIDs, gids: o.OldGIDs}, sharedTimes: o.SharedTimes,
	}
	newRoot, err := openDirHandle(newDir)
	if err != nil {
		return nil, err
	}
	defer newRoot.close()
	var oldRoot *dirHandle
	if oldDir != "" {
		if oldRoot, err = openDirHandle(oldDir); err != nil {
			return nil, err
		}
		defer oldRoot.close()
	}
	if err := n.dirs(newRoot, oldRoot); err != nil {
		return nil, err
	}
	return n.changes, nil
}

// A naiveWalk goes through two trees side by side.
type naiveWalk struct {
	newIDs, oldIDs idMaps
	sharedTimes    bool
	changes        []Change
	path           []byte // of the directory, with a leading slash; "" for the root
}

func (n *naiveWalk) add(kind ChangeKind) {
	n.changes = append(n.changes, Change{Path: string(n.path), Kind: kind})
}

// dirs compares the content of two directories; old is nil if all in the new one is new.
func (n *naiveWalk) dirs(newDir, oldDir *dirHandle) error {
	newNames, err := newDir.names()
	if err != nil {
		return n.fail("read directory", err)
	}
	var oldNames []string
	if oldDir != nil {
		if oldNames, err = oldDir.names(); err != nil {
			return n.fail("read directory", err)
		}
	}
	base := len(n.path)
	for len(newNames) > 0 || len(oldNames) > 0 {
		var name string
		inNew := len(newNames) > 0 && (len(oldNames) == 0 || newNames[0] <= oldNames[0])
		inOld := len(oldNames) > 0 && (len(newNames) == 0 || oldNames[0] <= newNames[0])
		if inNew {
			name, newNames = newNames[0], newNames[1:]
		}
		if inOld {
			name, oldNames = oldNames[0], oldNames[1:]
		}
		n.path = append(append(n.path, '/'), name...)
		if inNew {
			old := oldDir
			if !inOld {
				old = nil
			}
			err = n.entry(newDir, old, name)
		} else {
			n.add(ChangeDelete)
		}
		if err != nil {
			return err
		}
		n.path = n.path[:base]
	}
	return nil
}

// entry compares what both directories have under one name; oldDir is nil if the old one has nothing.
func (n *naiveWalk) entry(newDir, oldDir *dirHandle, name string) error {
	e, err := openEntry(newDir, name)
	if vanished(err) {
		if oldDir != nil {
			n.add(ChangeDelete)
		}
		return nil
	}
	if err != nil {
		return n.fail("open", err)
	}
	var old *walkEntry
	if oldDir != nil {
		if old, err = openEntry(oldDir, name); err != nil {
			return errors.Join(n.fail("open", err), e.close())
		}
	}
	err = n.compare(e, old)
	if cerr := e.close(); err == nil {
		err = cerr
	}
	if old != nil {
		if cerr := old.close(); err == nil {
			err = cerr
		}
	}
	return err
}

func (n *naiveWalk) compare(e, old *walkEntry) error {
	if old != nil && inodeOf(&e.st) == inodeOf(&old.st) {
		return nil
	}
	kind := ChangeAdd
	if old != nil {
		same, err := n.same(e, old)
		if err != nil {
			return n.fail("compare", err)
		}
		kind = ChangeModify
		if same {
			kind = unchanged
		}
	}
	if !e.isDir() {
		if kind != unchanged {
			n.add(kind)
		}
		return nil
	}
	// A directory is listed before its content, also if only that changed.
	at := len(n.changes)
	n.add(max(kind, ChangeModify))
	e.dir.suspend()
	var oldSelf *dirHandle
	if old != nil && old.isDir() {
		oldSelf = old.self
		old.dir.suspend()
	}
	err := n.dirs(e.self, oldSelf)
	if kind == unchanged && len(n.changes) == at+1 {
		n.changes = n.changes[:at]
	}
	return err
}

// same says whether two entries of one path are equal, as far as anybody can tell without reading them unless times are shared.
func (n *naiveWalk) same(e, old *walkEntry) (bool, error) {
	if e.st.Mode != old.st.Mode || !sameOwner(n.newIDs, n.oldIDs, &e.st, &old.st) || e.st.Rdev != old.st.Rdev ||
		!n.sameTimes(e, old) || (!e.isDir() && e.st.Size != old.st.Size) {
		return false, nil
	}
	if n.sharedTimes && e.isRegular() {
		if same, err := sameContent(e, old); err != nil || !same {
			return false, err
		}
	}
	if e.isSymlink() {
		a, err := e.dir.readlink(e.name)
		if err != nil {
			return false, err
		}
		if b, err := old.dir.readlink(old.name); err != nil || a != b {
			return false, err
		}
	}
	a, err := naiveAttrs(e.attrs(), n.newIDs)
	if err != nil {
		return false, err
	}
	b, err := naiveAttrs(old.attrs(), n.oldIDs)
	return err == nil && maps.EqualFunc(a, b, bytes.Equal), err
}

// sameOwner compares owners as containers see them, or as they are on disk where the mappings do not have them.
func sameOwner(newIDs, oldIDs idMaps, st, old *unix.Stat_t) bool {
	newUID, newGID := int(st.Uid), int(st.Gid)
	oldUID, oldGID := int(old.Uid), int(old.Gid)
	if u, g, err := newIDs.owner(st.Uid, st.Gid); err == nil {
		newUID, newGID = u, g
		if u, g, err := oldIDs.owner(old.Uid, old.Gid); err == nil {
			oldUID, oldGID = u, g
		}
	}
	return newUID == oldUID && newGID == oldGID
}

// naiveAttrs reads the attributes that are compared.
func naiveAttrs(a attrSource, m idMaps) (map[string][]byte, error) {
	names, err := a.list()
	if err != nil {
		return nil, err
	}
	var attrs map[string][]byte
	for _, name := range names {
		if name != capsXattr && !strings.HasPrefix(name, "user.") {
			continue
		}
		v, ok, err := a.get(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if name == capsXattr {
			if mapped, err := mapCapability(v, m); err == nil {
				v = mapped
			}
		}
		if attrs == nil {
			attrs = make(map[string][]byte)
		}
		attrs[name] = v
	}
	return attrs, nil
}

func (n *naiveWalk) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: string(n.path), Err: err}
}
