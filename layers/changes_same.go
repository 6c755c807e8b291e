package layers

import (
	"bytes"
	"os"
	"slices"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// same says whether two entries of one path are equal.
func (b *betweenWalk) same(m, old mergedAt) (bool, error) {
	switch {
	case b.sameIDs && m == old:
		return true, nil
	case m.node.kind != old.node.kind || !sameStoreTime(m.node.mtime, old.node.mtime) || !slices.Equal(m.node.empties, old.node.empties):
		return false, nil
	case m.node.kind == commitSpecial:
		return b.sameMeta(specialMeta(m.node.special), specialMeta(old.node.special)), nil
	}
	sum, oldSum := m.node.sum, old.node.sum
	if m.node.kind == commitDir {
		sum, oldSum = m.node.metaSum, old.node.metaSum
	}
	if b.sameIDs && (sum == oldSum || m.tree.repo.Label() == old.tree.repo.Label()) {
		return sum == oldSum, nil
	}
	// Owners or labels are in the checksums, and they may differ where the container sees no difference.
	meta, err := m.tree.meta(m.node)
	if err != nil {
		return false, err
	}
	oldMeta, err := old.tree.meta(old.node)
	return err == nil && b.sameMeta(meta, oldMeta), err
}

// sameStoreTime is sameTime for times of commits.
func sameStoreTime(a, b store.Time) bool {
	return a.Sec == b.Sec && (a.Nsec == b.Nsec || a.Nsec == 0 || b.Nsec == 0)
}

// A nodeMeta is what can be said of an entry besides its time, without reading it.
type nodeMeta struct {
	mode, uid, gid uint32
	major, minor   uint32
	target         string
	xattrs         []object.Xattr // without the label
	size           int64
}

func (b *betweenWalk) sameMeta(m, old nodeMeta) bool {
	st, oldSt := unix.Stat_t{Uid: m.uid, Gid: m.gid}, unix.Stat_t{Uid: old.uid, Gid: old.gid}
	return m.mode == old.mode && m.major == old.major && m.minor == old.minor && m.target == old.target && m.size == old.size &&
		sameOwner(b.newIDs, b.oldIDs, &st, &oldSt) &&
		slices.EqualFunc(m.xattrs, old.xattrs, func(x, y object.Xattr) bool {
			return x.Name == y.Name && bytes.Equal(mapXattr(x, b.newIDs), mapXattr(y, b.oldIDs))
		})
}

// mapXattr returns a value with the ids in it as the container sees them, or as it is if they have no mapping.
func mapXattr(x object.Xattr, m idMaps) []byte {
	v := slices.Clone(x.Value)
	var mapped []byte
	var err error
	switch x.Name {
	case capsXattr:
		mapped, err = mapCapability(v, m)
	case aclXattr, defaultACLXattr:
		mapped, err = mapACL(v, m)
	default:
		return v
	}
	if err != nil {
		return x.Value
	}
	return mapped
}

func specialMeta(s *special) nodeMeta {
	m := nodeMeta{mode: s.Mode, uid: s.UID, gid: s.GID, major: s.Major, minor: s.Minor, target: s.Target, size: int64(len(s.Target))}
	for _, a := range s.Attrs {
		m.xattrs = append(m.xattrs, object.Xattr{Name: a.Name, Value: []byte(a.Value)})
	}
	return m
}

// isWhiteoutSpecial says whether a device of an image is what overlayfs takes for a removed name.
func isWhiteoutSpecial(s *special) bool {
	return s.Mode&unix.S_IFMT == unix.S_IFCHR && s.Major == 0 && s.Minor == 0
}

// meta reads what an entry that has objects is.
func (t *commitTree) meta(n *commitNode) (nodeMeta, error) {
	if n.kind == commitDir {
		return nodeMeta{mode: n.meta.Mode, uid: n.meta.UID, gid: n.meta.GID, xattrs: unlabelled(n.meta.Xattrs)}, nil
	}
	h, f, err := t.repo.OpenFile(n.sum)
	if err != nil {
		return nodeMeta{}, err
	}
	m := nodeMeta{mode: h.Mode, uid: h.UID, gid: h.GID, target: h.Target, xattrs: unlabelled(h.Xattrs)}
	m.size, err = contentSize(h, f)
	return m, err
}

// size returns the size of an entry that is no directory, as stat shows it.
func (t *commitTree) size(n *commitNode) (int64, error) {
	if n.kind == commitSpecial {
		return int64(len(n.special.Target)), nil
	}
	h, f, err := t.repo.OpenFile(n.sum)
	if err != nil {
		return 0, err
	}
	return contentSize(h, f)
}

// contentSize closes the file of an object and returns its size, or that of a symlink, which has no file.
func contentSize(h *object.FileHeader, f *os.File) (int64, error) {
	if f == nil {
		return int64(len(h.Target)), nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// unlabelled leaves the store label out.
func unlabelled(xattrs []object.Xattr) []object.Xattr {
	return slices.DeleteFunc(slices.Clone(xattrs), func(x object.Xattr) bool { return x.Name == labelXattr })
}
