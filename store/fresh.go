package store

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFresh is how many new files a stage has open until Publish, or a part of what the process may open, since it may fill several
// stages at once. With more a syncfs is quicker.
const maxFresh = 256

var freshRoom = sync.OnceValue(func() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return int(min(maxFresh, l.Cur/32))
})

// A fresh is the new files of a small stage, such as a step of a build makes. Where the journal orders changes, Publish has
// them written out one by one and not all that the filesystem has not written yet.
type fresh struct {
	mu    sync.Mutex
	files []int
	all   bool // there are others, or nothing but a sync of all will do
}

// let closes a file that this stage has made, now or with Publish.
func (s *Stage) let(fd int) error {
	kept, err := s.fresh.keep(fd)
	if kept {
		return nil
	}
	return errors.Join(err, unix.Close(fd))
}

// keep keeps a file open, or none from the first on for which there is no room.
func (f *fresh) keep(fd int) (kept bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.all:
		return false, nil
	case len(f.files) < freshRoom():
		f.files = append(f.files, fd)
		return true, nil
	}
	f.all = true
	return false, f.close()
}

// syncAll has Publish sync the whole filesystem, since the stage has files that others made and that may not be durable.
func (s *Stage) syncAll() {
	s.fresh.mu.Lock()
	defer s.fresh.mu.Unlock()
	s.fresh.all = true
}

// close closes the files.
func (f *fresh) close() error {
	var err error
	for _, fd := range f.files {
		err = errors.Join(err, unix.Close(fd))
	}
	f.files = nil
	return err
}

// writeFresh writes out the files of the stage, if it knows them all, and reports whether it did.
func (s *Stage) writeFresh() (done bool, err error) {
	s.fresh.mu.Lock()
	defer s.fresh.mu.Unlock()
	defer func() { err = errors.Join(err, s.fresh.close()) }()
	if s.fresh.all {
		return false, nil
	}
	notes, err := s.r.unsyncedNotes()
	if err != nil {
		return false, err
	}
	for _, name := range notes {
		if ofThisBoot(name) { // what this stage has linked may be torn
			return false, nil
		}
	}
	for _, fd := range s.fresh.files {
		if err := unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE); err != nil {
			break // the next call says so
		}
	}
	for _, fd := range s.fresh.files {
		if err := s.r.disk.writeOut(fd); err != nil {
			return false, fmt.Errorf("write out the files of the stage: %w", err)
		}
	}
	return true, nil
}
