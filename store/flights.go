package store

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Images that are pulled at once mostly share files, and none has published any yet. So a stage tells the others which new
// files it makes: who wants the same one waits for the moment that takes and links the inode into its own tree. Each stage
// publishes on its own; whose file it was is of no importance then, not even if that stage is given up. A stage that is
// alone tells nobody, and with NoSync none does, since each notes what it wrote.

// A flightKey names a lane of an object: half a checksum is enough that nobody can make two files with the same.
type flightKey struct {
	sum  handleKey
	time Time
	n    uint32
}

// flights are the new files of the stages of one repository.
type flights struct {
	mu     sync.Mutex // held while a file is looked for, so that no two stages of this process make one
	table  *flightTable
	stages int  // of this process; table is open while there are any
	denied bool // this process may not open a file by its handle
}

// enter takes part, with those who have the table at the path in common; "" is this process alone.
func (f *flights) enter(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stages == 0 {
		f.table = openFlightTable(path)
	}
	f.stages++
	f.table.head.stages.Add(1)
}

func (f *flights) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.head.stages.Add(-1)
	if f.stages--; f.stages == 0 {
		f.table.close()
		f.table = nil
	}
}

// find returns where a file is, or shall be told if mine. It returns nil if that is of no use.
func (f *flights) find(key *flightKey) (slot *flightSlot, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.denied || f.table.head.stages.Load() < 2 || !f.table.usable() {
		return nil, false
	}
	return f.table.find(key)
}

// join finds another stage's new file that is the lane wanted. If there is none, the caller makes it, and then calls land
// of the slot that it gets, which may be nil.
func (s *Stage) join(it *item, n uint32) (at spot, mine *flightSlot) {
	if s.o.NoSync || it.header.Mode&unix.S_IFMT != unix.S_IFREG {
		return spot{}, nil
	}
	key := flightKey{handleKey(it.sum[:16]), s.laneTime(it.time), n}
	slot, ours := s.r.flights.find(&key)
	if slot == nil || ours {
		return spot{}, slot
	}
	if handle, ok := slot.wait(&key); ok {
		return s.board(it, handle), nil
	}
	return spot{}, nil
}

// board opens another stage's file.
func (s *Stage) board(it *item, handle unix.FileHandle) spot {
	fd, err := unix.OpenByHandleAt(int(s.dir.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		if err == unix.EPERM {
			s.r.flights.mu.Lock()
			s.r.flights.denied = true
			s.r.flights.mu.Unlock()
		}
		return spot{}
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Nlink == 0 || !it.fits(&st) || !s.isOpen(&st, it) || !s.free(st.Ino) {
		unix.Close(fd)
		return spot{}
	}
	return spot{dir: fd, ino: st.Ino, foreign: true, open: true}
}

// close gives back what the spot holds open.
func (at *spot) close() {
	if at.open {
		unix.Close(at.dir)
	}
}
