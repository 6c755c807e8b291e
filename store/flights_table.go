package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A flightTable is memory in which stages tell each other what they make: all processes' if it is a file on a tmpfs, where
// writing to it costs no disk and space can be had in advance, else this process's. A lock on the file says that somebody uses
// it; who finds it unlocked begins it anew, so nothing that a crash left lasts. What is in it is a hint: a file found by it is
// looked at like any other, and one that is not found is written twice.
type flightTable struct {
	file  *os.File // nil if it is this process's alone
	mem   []byte
	head  *flightHead
	slots *[flightSlots]flightSlot
}

// flightHead is the first page of a table.
type flightHead struct {
	stages atomic.Int32  // that take part; too many after a crash, which only costs the telling
	state  atomic.Uint32 // of the slots
}

// States of the slots, which are made for the second stage.
const (
	slotsMissing uint32 = iota
	slotsComing
	slotsUsable
	slotsRefused
)

const (
	flightPage  = 4096
	flightSlots = 1 << 16
	flightBytes = flightPage + flightSlots*int(unsafe.Sizeof(flightSlot{}))
	flightReach = 8 // slots in which a file can be
)

// A flightSlot tells of one file.
type flightSlot struct {
	meta   atomic.Uint64 // how often the slot was taken, times four, and its state
	sum    handleKey
	sec    int64
	nsec   uint32
	n      uint32
	kind   uint8 // of the handle
	size   uint8
	handle [22]byte // btrfs needs 20
}

// States of a slot.
const (
	slotFree    = iota
	slotMaking  // the file is being made
	slotLanded  // the handle leads to it
	slotNothing // it will not be
	slotStates  = 4
)

// openFlightTable opens the table at a path, or one of this process if there is no path or that cannot be.
func openFlightTable(path string) *flightTable {
	for tries := 0; path != "" && tries < 100; tries++ { // others may be just beginning it, or giving it up
		t, err := shareFlightTable(path)
		if err == nil {
			return t
		}
		if err != errNotBegun {
			break
		}
	}
	mem, err := unix.Mmap(-1, 0, flightBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t := newFlightTable(nil, make([]byte, flightPage))
		t.mem = nil
		t.head.state.Store(slotsRefused)
		return t
	}
	return newFlightTable(nil, mem)
}

func newFlightTable(f *os.File, mem []byte) *flightTable {
	at := unsafe.Pointer(unsafe.SliceData(mem))
	return &flightTable{file: f, mem: mem, head: (*flightHead)(at), slots: (*[flightSlots]flightSlot)(unsafe.Add(at, flightPage))}
}

// errNotBegun says that the file was found between its users.
var errNotBegun = errors.New("not begun")

func shareFlightTable(path string) (_ *flightTable, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return nil, cmp.Or(err, error(unix.EOPNOTSUPP))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	begin := lockTable(f, unix.F_OFD_SETLK, unix.F_WRLCK) == nil
	if begin {
		err = errors.Join(f.Truncate(0), unix.Fallocate(int(f.Fd()), 0, 0, flightPage))
	}
	if err = errors.Join(err, lockTable(f, unix.F_OFD_SETLKW, unix.F_RDLCK)); err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || st.Size() < flightPage {
		return nil, cmp.Or(err, errNotBegun)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, flightBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return newFlightTable(f, mem), nil
}

// close gives the table up, and its memory if nobody else uses it.
func (t *flightTable) close() {
	if t.mem != nil {
		_ = unix.Munmap(t.mem) // fails only if it is no mapping
	}
	if t.file == nil {
		return
	}
	if lockTable(t.file, unix.F_OFD_SETLK, unix.F_WRLCK) == nil {
		_ = t.file.Truncate(0)
	}
	t.file.Close()
}

func lockTable(f *os.File, how int, kind int16) error {
	_, err := retry(func() (int, error) {
		return 0, unix.FcntlFlock(f.Fd(), how, &unix.Flock_t{Type: kind})
	})
	return err
}

// usable tells if there are slots, and makes them if there are none yet. Memory that could not be had when it is written to
// would end the process.
func (t *flightTable) usable() bool {
	if t.head.state.CompareAndSwap(slotsMissing, slotsComing) {
		if t.file != nil && unix.Fallocate(int(t.file.Fd()), 0, flightPage, int64(flightBytes-flightPage)) != nil {
			t.head.state.Store(slotsRefused)
			return false
		}
		t.head.state.Store(slotsUsable)
	}
	return t.head.state.Load() == slotsUsable
}

// find returns the slot of a file, or one for it that is now mine to land. What else was told in the latter is forgotten.
func (t *flightTable) find(key *flightKey) (slot *flightSlot, mine bool) {
	at := binary.LittleEndian.Uint64(key.sum[:]) ^ uint64(key.time.Nsec) ^ uint64(key.n)<<32
	var old *flightSlot
	for i := range uint64(flightReach) {
		l := &t.slots[(at+i)%flightSlots]
		state := l.meta.Load() % slotStates
		if state == slotFree {
			return l.take(key)
		}
		if l.is(key) {
			return l, false
		}
		if old == nil && state != slotMaking {
			old = l
		}
	}
	if old == nil {
		return nil, false
	}
	return old.take(key)
}

// take makes the slot that of a file, unless another process is faster.
func (l *flightSlot) take(key *flightKey) (slot *flightSlot, mine bool) {
	meta := l.meta.Load()
	if meta%slotStates == slotMaking || !l.meta.CompareAndSwap(meta, meta-meta%slotStates+slotStates+slotMaking) {
		return nil, false
	}
	l.sum, l.sec, l.nsec, l.n = key.sum, key.time.Sec, key.time.Nsec, key.n
	return l, true
}

func (l *flightSlot) is(key *flightKey) bool {
	return l.sum == key.sum && l.sec == key.time.Sec && l.nsec == key.time.Nsec && l.n == key.n
}

// maxFlight is how long a file is waited for: its maker may be dead, and the caller can make it as well.
const maxFlight = time.Second

// wait waits until the file is there, and returns its handle.
func (l *flightSlot) wait(key *flightKey) (unix.FileHandle, bool) {
	nap := 20 * time.Microsecond
	for waited := time.Duration(0); waited < maxFlight; waited += nap {
		meta := l.meta.Load()
		switch meta % slotStates {
		case slotMaking:
			time.Sleep(nap)
			nap = min(2*nap, 5*time.Millisecond)
			continue
		case slotLanded:
			kind, size, handle, same := l.kind, l.size, l.handle, l.is(key)
			if same && l.meta.Load() == meta && int(size) <= len(handle) {
				return unix.NewFileHandle(int32(kind), handle[:size]), true
			}
		}
		break
	}
	return unix.FileHandle{}, false
}

// land says that the file is complete under the name, or with an error that it will not be.
func (l *flightSlot) land(dir int, name string, err error) {
	if l == nil {
		return
	}
	state := uint64(slotNothing)
	if err == nil {
		h, _, err := unix.NameToHandleAt(dir, name, 0)
		if err == nil && h.Type() >= 0 && h.Type() < 256 && h.Size() <= len(l.handle) {
			l.kind, l.size, state = uint8(h.Type()), uint8(h.Size()), slotLanded
			copy(l.handle[:], h.Bytes())
		}
	}
	l.meta.Store(l.meta.Load() - slotMaking + state)
}
