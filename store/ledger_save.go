package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/ledger"
	"github.com/ostree-storage/ostree-storage/store/object"
)

var errBusyLedger = errors.New("another process writes it just now")

// Save writes what was found out, if that is worth it. With all set, accounts of layers that nobody asked for are dropped. Nothing waits for
// the disk: what a power cut tears is not read. A repository that cannot be written to, or has no room, has no ledger.
func (l *Ledger) Save(all bool) error {
	keeps := func(i int) bool {
		s := l.state[i]
		return l.book.Accounts[i].Dir != (ledger.Stamp{}) && (s == sameDir || s == holds || s == kept || s == unasked && !all)
	}
	changes := l.changes + l.knowPlaces()*l.saved/max(len(l.book.Objects), 1)
	for i := range l.saved {
		if !keeps(i) {
			changes++
		}
	}
	if changes == 0 || changes < manyChanges && changes*16 < l.saved {
		return nil
	}
	file := l.book.Encode(func(a *ledger.Account) bool {
		i, _ := l.book.Account(a.ID)
		return keeps(int(i))
	})
	err := l.r.replaceLedger(file)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, errBusyLedger) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", ledgerFile, err)
	}
	return nil
}

// knowPlaces notes where the metadata objects are that were found, which tells the next in which order to look. It returns how many were
// not known to be anywhere.
func (l *Ledger) knowPlaces() (fresh int) {
	for n := range l.book.Objects {
		o := &l.book.Objects[n]
		if o.Name.Type == object.TypeFile || l.found[n].ino == 0 {
			continue
		}
		if o.Ino == 0 {
			fresh++
		}
		o.Ino = l.found[n].ino
	}
	return fresh
}

// manyChanges is from how many changes on the ledger is written anew, however long it is.
const manyChanges = 64

// replaceLedger puts a new ledger in the place of the old one. Who writes has the new file's lock; what a crash leaves of it is
// written over by the next.
func (r *root) replaceLedger(file []byte) error {
	var space unix.Statfs_t
	if err := unix.Fstatfs(r.fd(), &space); err != nil {
		return err
	}
	if uint64(len(file))*ledgerShare > space.Bavail*uint64(space.Bsize) {
		return unix.ENOSPC
	}
	const next = ledgerFile + ".new"
	fd, err := retry(func() (int, error) {
		return unix.Openat(r.fd(), next, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != nil {
		return errBusyLedger
	}
	var is, named unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &is), lstat(r.fd(), next, &named)); err != nil || is.Ino != named.Ino {
		return errBusyLedger // it was put in place before we had the lock
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		return err
	}
	err = writeAll(fd, file, 0)
	if err == nil {
		err = r.disk.rename(r.fd(), next, r.fd(), ledgerFile)
	}
	if err != nil {
		return errors.Join(err, r.disk.remove(r.fd(), next))
	}
	return nil
}

// ledgerShare is which part of the free space a ledger may take at most.
const ledgerShare = 16
