package layers

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// compare says why name in dir is not the entry, "" if it is.
func (t *treeCheck) compare(dir int, name string, e *Entry) string {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "stat: " + err.Error()
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case e.Whiteout:
		if kind != unix.S_IFCHR || st.Rdev != 0 {
			return "it is no whiteout"
		}
		return ""
	case kind != e.Mode&unix.S_IFMT:
		return fmt.Sprintf("its type is %o, not %o", kind, e.Mode&unix.S_IFMT)
	case e.IsDir():
		return ""
	}
	if reason := t.inode(&st, e); reason != "" {
		return reason
	}
	if got := (store.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}); !t.l.catalog.o.SharedTimes && !sameStoredTime(got, e.MTime) {
		return fmt.Sprintf("its time is %d.%09d, not %d.%09d", got.Sec, got.Nsec, e.MTime.Sec, e.MTime.Nsec)
	}
	if !e.object {
		return t.special(dir, name, &st, e)
	}
	if st.Size != e.Size {
		return fmt.Sprintf("its size is %d, not %d", st.Size, e.Size)
	}
	return t.content(dir, name, &st, e)
}

// sameStoredTime compares times as coarsely as a filesystem may have stored them.
func sameStoredTime(got, want store.Time) bool {
	return got == want || got.Sec == want.Sec && (got.Nsec == 0 || want.Nsec/1000 == got.Nsec/1000 || want.Nsec/100 == got.Nsec/100) || outOfRange(want)
}

// outOfRange tells if some filesystem of ours cannot keep a time; what it has instead is not known here.
func outOfRange(t store.Time) bool { return t.Sec < -1<<31 || t.Sec >= 1<<31 }

// inode says what is wrong with the hardlinks of an inode.
func (t *treeCheck) inode(st *unix.Stat_t, e *Entry) string {
	if e.First != e.Index {
		if first := t.names[e.First]; first != 0 && first != st.Ino {
			return "it is not a hardlink to the name that the commit says"
		}
		return ""
	}
	if e.linked {
		t.names[e.Index] = st.Ino
	}
	if other, ok := t.used[st.Ino]; ok && other != e.Index {
		return "it is a hardlink to another name, and the commit knows of none"
	}
	if st.Nlink > 1 {
		t.used[st.Ino] = e.Index
	}
	return ""
}

// content compares a file with its object. An inode that is the object's own is the repository's to check.
func (t *treeCheck) content(dir int, name string, st *unix.Stat_t, e *Entry) string {
	repo := t.l.catalog.repo
	if t.o.Quick || st.Ino == repo.ObjectInode(e.Checksum) {
		return ""
	}
	if t.o.Parts > 1 && (int(e.Checksum[0])<<8|int(e.Checksum[1]))%t.o.Parts != t.o.Part-1 {
		return ""
	}
	if st.Nlink > 1 {
		if reason, known := t.o.seen.of(st.Ino); known {
			return reason
		}
	}
	reason, err := repo.Inspect(dir, name, e.Checksum, t.unescape)
	if err != nil {
		reason = err.Error()
	}
	if st.Nlink > 1 {
		t.o.seen.add(st.Ino, reason)
	}
	return reason
}

// special compares what has no object.
func (t *treeCheck) special(dir int, name string, st *unix.Stat_t, e *Entry) string {
	if st.Uid != e.UID || st.Gid != e.GID {
		return fmt.Sprintf("its owner is %d:%d, not %d:%d", st.Uid, st.Gid, e.UID, e.GID)
	}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		if unix.Major(st.Rdev) != e.Major || unix.Minor(st.Rdev) != e.Minor {
			return fmt.Sprintf("it is device %d:%d, not %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev), e.Major, e.Minor)
		}
	case unix.S_IFLNK:
		b := make([]byte, maxTarget+1)
		n, err := unix.Readlinkat(dir, name, b)
		if err != nil || string(b[:n]) != e.Target {
			return "its target is another"
		}
		return ""
	}
	if st.Mode != e.Mode {
		return fmt.Sprintf("its mode is %o, not %o", st.Mode, e.Mode)
	}
	return ""
}

// directory compares a directory with its entry.
func (t *treeCheck) directory(fd int, st *unix.Stat_t, e *Entry) string {
	if e.Path == "." && e.Implied {
		return "" // owner, mode and time are the parent's, or whoever made the container's
	}
	if st.Uid != e.UID || st.Gid != e.GID {
		return fmt.Sprintf("its owner is %d:%d, not %d:%d", st.Uid, st.Gid, e.UID, e.GID)
	}
	if st.Mode != e.Mode {
		return fmt.Sprintf("its mode is %o, not %o", st.Mode, e.Mode)
	}
	got := store.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
	if !sameStoredTime(got, e.MTime) {
		return fmt.Sprintf("its time is %d.%09d, not %d.%09d", got.Sec, got.Nsec, e.MTime.Sec, e.MTime.Nsec)
	}
	list, err := xattrsAt(fd, ".")
	if err != nil {
		return "read its attributes: " + err.Error()
	}
	prefix := overlayPrefix(t.l.catalog.o.UserXattr)
	opaque := slices.ContainsFunc(list, func(x object.Xattr) bool { return x.Name == prefix+"opaque" && string(x.Value) == "y" })
	if opaque != e.Opaque {
		return fmt.Sprintf("opaque is %t, not %t", opaque, e.Opaque)
	}
	list = slices.DeleteFunc(t.unescape(list), func(x object.Xattr) bool { return x.Name == labelXattr })
	object.SortXattrs(list)
	list, want := store.WithoutShadows(list), store.WithoutShadows(e.Xattrs) // the commit may be another filesystem's
	if !object.EqualXattrs(list, want) {
		return "its attributes are others"
	}
	return ""
}
