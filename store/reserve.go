package store

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// reserveSize is room for what a removal has to make before it frees anything: a directory, an inode, a symlink, and the
// blocks by which directories grow. xfs wants more free for each call than it takes.
const reserveSize = 1 << 20

// btrfs keeps metadata apart from data, and asks for far more of it than a call takes: there the reserve is attributes, and some data
// for the records of others.
const (
	reserveAttrs = 256
	reserveAttr  = 12 << 10
	reserveData  = 256 << 10
)

// reserveInodes is how many files without content the reserve has besides: a removal makes some, and inodes run out too.
const reserveInodes = 8

func reserveInode(i int) string { return reserveFile + "." + strconv.Itoa(i) }

// reserveBelow is how little room there has to be for a reserve to be kept, and reserveAbove how much for one to be made: below that,
// what was given up a moment ago is for whoever removes something.
const (
	reserveBelow = 2 << 30
	reserveAbove = 4 << 20
)

// giveUpBelow is the room, giveUpInodes the number of inodes, with which others than we can write nothing any more.
const (
	giveUpBelow  = 256 << 10
	giveUpInodes = 4
)

// tendReserve is keepReserve for one who begins, and knows not what for: on a filesystem that others have filled it gives the reserve
// up. Containers/storage writes its records anew before it asks for a removal, and would fail where we would not.
func (r *root) tendReserve() {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.fd(), &fs); err != nil {
		return
	}
	room := fs.Bavail
	if fs.Type == unix.EXT4_SUPER_MAGIC && os.Geteuid() == 0 { // some is root's alone, and some, 2 % or 4,096 blocks, not even that
		room = max(room, fs.Bfree-min(fs.Bfree, fs.Blocks/45, 4096))
	}
	if room*uint64(fs.Bsize) < giveUpBelow || fs.Files > 0 && fs.Ffree < giveUpInodes {
		if r.giveUpReserve() {
			_ = r.syncfs(r.fd()) // ext4 and btrfs give blocks out again when what freed them is in the journal
		}
		return
	}
	r.keepReserve()
}

// giveUpReserve tells if there was a reserve to give up.
func (r *root) giveUpReserve() bool {
	if r.disk.remove(r.fd(), reserveFile) != nil {
		return false
	}
	for i := range reserveInodes {
		r.disk.remove(r.fd(), reserveInode(i)) // what cannot be removed is for the next to give up
	}
	return true
}

// keepReserve sees that the reserve is there where room is getting short: files that are worth nothing but their blocks and inodes. Where it cannot be made,
// removals on a full filesystem have to do without.
func (r *root) keepReserve() {
	var st unix.Stat_t
	if lstat(r.fd(), reserveFile, &st) != unix.ENOENT {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.fd(), &fs); err != nil {
		return
	}
	if room := fs.Bavail * uint64(fs.Bsize); room > reserveBelow || room < reserveAbove {
		return
	}
	for i := range reserveInodes {
		if fd, err := r.disk.create(r.fd(), reserveInode(i), 0o600); err == nil {
			unix.Close(fd)
		}
	}
	fd, err := r.disk.create(r.fd(), reserveFile, 0o600)
	if err != nil {
		return
	}
	err = fillReserve(fd)
	if errors.Join(err, unix.Close(fd)) != nil {
		r.disk.remove(r.fd(), reserveFile)
	}
}

// withRoom calls remove, which removes something, and again if the filesystem is full and a reserve can be given up.
func (r *root) withRoom(remove func() error) error {
	err := remove()
	if !isFull(err) {
		return err
	}
	if !r.giveUpReserve() {
		return err
	}
	return remove()
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func fillReserve(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	data := int64(reserveSize)
	if fs.Type == unix.BTRFS_SUPER_MAGIC {
		data = reserveData
	}
	if _, err := retry(func() (int, error) { return 0, unix.Fallocate(fd, 0, 0, data) }); err != nil || data != reserveData {
		return err
	}
	value := make([]byte, reserveAttr)
	for i := range reserveAttrs {
		if err := unix.Fsetxattr(fd, "user.reserve."+strconv.Itoa(i), value, 0); err != nil {
			return err
		}
	}
	return nil
}
