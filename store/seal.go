// A removal has to know what every ref reaches, and to list those of all layers would cost what the store holds. For
// counted refs (package index) it need not: what they reach is in the index, and how many there are of a commit is in a
// link count. The seal says that all refs in the layers' directory are counted.
//
// It describes the directory, with a modification time that was made up at random, and that every change of its entries,
// whoever makes it, replaces by the clock's. Our own changes seal it again. That nobody else has changed it between our
// look at the old seal and the new time a watch tells. Whatever cannot be known, or done, leaves a seal that does not fit,
// and the next removal lists the refs once and seals them.
//
// Seals are made under the repository's lock: whoever takes a commit out of the index that a ref may name breaks the seal
// under the exclusive lock, and nobody is about to make one then.

package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// describeRefs returns what the seal must say while the layers' refs are as they are. A seal of another boot does not fit: after
// a power cut the directory's time may be another than that of its entries.
func (r *root) describeRefs() (text string, mtime unix.Timespec, err error) {
	boot, err := bootID()
	if err != nil {
		return "", mtime, err
	}
	var st unix.Stat_t
	if err := lstat(r.fd(), layerRefsDir, &st); err != nil {
		return "", mtime, err
	}
	sum := object.Sum(fmt.Appendf(nil, "%s %d %d.%d %d.%d", boot, st.Ino, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec))
	return sum.String()[:sealSize], st.Mtim, nil
}

// sealSize is as much as ext4 keeps in the inode of a symlink, or less.
const sealSize = 40

// sealed tells if all refs in the layers' directory are counted.
func (r *root) sealed() bool {
	is, err := readTarget(r.fd(), sealFile)
	if err != nil {
		return false
	}
	want, _, err := r.describeRefs()
	return err == nil && is == want
}

// sealRefs makes the seal if w has seen no changes of the refs but those that are given, which are known.
func (r *root) sealRefs(w *watch, known int) {
	made := madeUpTime()
	if r.disk.stamp(r.fd(), layerRefsDir, made) != nil {
		return
	}
	text, mtime, err := r.describeRefs()
	if err != nil || mtime != made || w.changes() != known || r.unseal() != nil {
		return
	}
	_ = r.disk.symlink(text, r.fd(), sealFile)
}

// unseal breaks the seal.
func (r *root) unseal() error {
	if err := r.disk.remove(r.fd(), sealFile); err != nil && err != unix.ENOENT {
		return placeError("remove", sealFile, err)
	}
	return nil
}

// madeUpTime is one that no clock shows: of the years to 1978, and as good as unique.
func madeUpTime() unix.Timespec {
	var b [8]byte
	rand.Read(b[:])
	n := binary.NativeEndian.Uint64(b[:])
	return unix.Timespec{Sec: int64(1 + n>>36), Nsec: int64(n & (1<<29 - 1))}
}

// local tells if the filesystem is one whose changes all pass this kernel, and where equal inode numbers are one file.
func (r *root) local() bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(r.fd(), &fs) == nil && slices.Contains(localFilesystems, int64(fs.Type))
}

var localFilesystems = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC,
}

// changeRef makes a change that gives one ref its file or takes it away. If the repository's lock is held, it keeps the seal.
func (r *root) changeRef(name string, locked bool, change func() error) error {
	id, ours := strings.CutPrefix(name, layerRefs)
	if !ours || strings.Contains(id, "/") || !locked || !r.sealed() {
		return change()
	}
	w := r.watchDir(layerRefsDir)
	if w == nil {
		return change()
	}
	defer w.end()
	fits := r.sealed()
	if err := change(); err != nil || !fits {
		return err
	}
	if r.goneOrCounted(name) {
		r.sealRefs(w, 1)
	}
	return nil
}

// goneOrCounted tells if a ref's file is not there, or is counted.
func (r *root) goneOrCounted(name string) bool {
	var st unix.Stat_t
	if err := lstat(int(r.heads.Fd()), name, &st); err != nil {
		return err == unix.ENOENT
	}
	c, err := r.parseRef(headsDir + "/" + name)
	if err != nil {
		return false
	}
	ino, _ := r.countedNames(c)
	return ino == st.Ino
}

// countedNames returns the inode of a commit's counted refs and how many there are; 0 if it is not known.
func (r *root) countedNames(c object.Checksum) (ino uint64, names int) {
	err := r.withIndex(func(x *index.Index) (err error) {
		ino, names, err = x.Ref(c)
		return err
	})
	if err != nil {
		return 0, 0
	}
	return ino, names
}

// seal lists the refs of layers if that was not done since they changed, and seals them if all are counted.
func (r *root) seal(ctx context.Context) error {
	if r.sealed() || !r.local() {
		return nil
	}
	unlock, err := r.lockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	w := r.watchDir(layerRefsDir)
	if w == nil {
		return nil
	}
	defer w.end()
	if _, rest, err := r.countedRefs(layerRefsDir); err == nil && !slices.ContainsFunc(rest, isFragment) {
		r.sealRefs(w, 0)
	}
	return nil
}

// countedRefs lists a directory of refs: the counted ones with their commits, and the names of all others. It is true to
// the directory unless that has been changed meanwhile.
func (r *root) countedRefs(p string) (counted map[string]object.Checksum, rest []string, err error) {
	fd, err := openDir(r.fd(), p)
	if err != nil {
		return nil, nil, &os.PathError{Op: "list refs", Path: p, Err: err}
	}
	defer unix.Close(fd)
	err = r.withIndex(func(x *index.Index) (err error) {
		counted, rest, err = x.Refs(fd)
		return err
	})
	return counted, rest, err
}
