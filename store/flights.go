package store

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Images that are pulled at once by one process mostly share files, and none of them has published any yet. So a stage
// tells the others of this process which new files it makes: who wants the same one waits for the moment that takes and
// links the inode into its own tree. Each stage publishes on its own; whose file it was is of no importance then, not even
// if that stage is given up. A stage that is alone tells nobody, and with NoSync none does, since each notes what it wrote.

// A flightKey names a lane of an object: half a checksum is enough that nobody can make two files with the same.
type flightKey struct {
	sum  handleKey
	time Time
	n    uint32
}

// A flight is a new file of a stage.
type flight struct {
	stage  *Stage
	landed chan struct{} // closed when the file is complete, or will not be
	handle unix.FileHandle
	ok     bool // handle leads to it
}

// maxFlights bounds the memory for files of several stages; each takes about 200 bytes.
const maxFlights = 1 << 18

// flights are the new files of the stages of one repository.
type flights struct {
	mu     sync.Mutex
	stages int
	files  map[flightKey]*flight
	denied bool // this process may not open a file by its handle
}

func (f *flights) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stages++
}

// leave forgets the stage's files.
func (f *flights) leave(s *Stage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stages--
	for k, l := range f.files {
		if l.stage == s {
			delete(f.files, k)
		}
	}
}

// join finds another stage's new file that is the lane wanted. If there is none, the caller makes it, and then calls land
// of the flight that it gets, which may be nil.
func (s *Stage) join(it *item, n uint32) (at spot, mine *flight) {
	f := &s.r.flights
	if s.o.NoSync || it.header.Mode&unix.S_IFMT != unix.S_IFREG {
		return spot{}, nil
	}
	key := flightKey{handleKey(it.sum[:16]), s.laneTime(it.time), n}
	f.mu.Lock()
	if f.stages < 2 || f.denied {
		f.mu.Unlock()
		return spot{}, nil
	}
	l := f.files[key]
	if l == nil {
		if len(f.files) < maxFlights {
			l = &flight{stage: s, landed: make(chan struct{})}
			if f.files == nil {
				f.files = make(map[flightKey]*flight)
			}
			f.files[key] = l
			mine = l
		}
		f.mu.Unlock()
		return spot{}, mine
	}
	f.mu.Unlock()
	<-l.landed
	if !l.ok || l.stage == s {
		return spot{}, nil
	}
	return s.board(it, l), nil
}

// board opens a flight's file.
func (s *Stage) board(it *item, l *flight) spot {
	fd, err := unix.OpenByHandleAt(int(s.dir.Fd()), l.handle, unix.O_PATH|unix.O_CLOEXEC)
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

// land says that the file is complete under the name, or with an error that it will not be.
func (l *flight) land(dir int, name string, err error) {
	if l == nil {
		return
	}
	if err == nil {
		l.handle, _, err = unix.NameToHandleAt(dir, name, 0)
	}
	l.ok = err == nil
	close(l.landed)
}

// close gives back what the spot holds open.
func (at *spot) close() {
	if at.open {
		unix.Close(at.dir)
	}
}
