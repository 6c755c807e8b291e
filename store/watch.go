package store

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A watch counts the changes of a directory's entries, whoever makes them: dnotify, see fcntl(2). The kernel sends the
// watching thread a signal for each, while the directory is locked for the change, and queues real-time signals one by one.
// inotify would do as well, but would take 20 ms to close, or to end a process that has not closed it.
type watch struct {
	fd      int
	signals unix.Sigset_t // those that tell
	before  unix.Sigset_t // what the thread blocked
	lost    bool          // the kernel could not queue a signal
}

// The signals are blocked in the watching thread and sent to it alone: one for each change, the other when there was no room
// for that.
const (
	watchSignal = 60
	lostSignal  = int(unix.SIGIO)
)

// watchDir begins to watch a directory of the repository; nil if that cannot be done. Until the end the goroutine has its
// thread for itself.
func (r *root) watchDir(path string) *watch {
	fd, err := openDir(r.fd(), path)
	if err != nil {
		return nil
	}
	runtime.LockOSThread()
	w := &watch{fd: fd}
	const word = 8 * int(unsafe.Sizeof(w.signals.Val[0]))
	for _, n := range []int{watchSignal, lostSignal} {
		w.signals.Val[(n-1)/word] |= 1 << ((n - 1) % word)
	}
	if unix.PthreadSigmask(unix.SIG_BLOCK, &w.signals, &w.before) != nil {
		runtime.UnlockOSThread()
		unix.Close(fd)
		return nil
	}
	w.changes() // nothing that somebody else had the signals for
	w.lost = false
	if !w.begin() {
		w.end()
		return nil
	}
	return w
}

func (w *watch) begin() bool {
	const ownerIsThread, create, remove, repeated = 0, 0x4, 0x8, 0x80000000 // F_OWNER_TID, DN_CREATE, DN_DELETE, DN_MULTISHOT
	owner := [2]int32{ownerIsThread, int32(unix.Gettid())}
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(w.fd), unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner)))
	if errno != 0 {
		return false
	}
	for _, set := range [][2]int{{unix.F_SETSIG, watchSignal}, {unix.F_NOTIFY, create | remove | repeated}} {
		if _, err := unix.FcntlInt(uintptr(w.fd), set[0], set[1]); err != nil {
			return false
		}
	}
	// A change may have begun before there was a watch. Reading waits until it is done: what looks at the directory from now
	// on sees it.
	_, err := unix.Getdents(w.fd, make([]byte, 1024))
	return err == nil
}

// changes returns how many names have come or gone since it was last asked; -1 if that is not known. A name that is moved
// within the directory does both. Those that came before a change that the caller made are counted with it.
func (w *watch) changes() int {
	var info [128]byte       // siginfo_t
	var now [2]int64         // struct timespec: do not wait
	const sizeOfSet = 64 / 8 // the kernel's sigset_t
	for n := 0; ; {
		signal, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&w.signals)),
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&now)), sizeOfSet, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !w.lost:
			return n
		case errno != 0:
			return -1
		case int(signal) == watchSignal:
			n++
		default:
			w.lost = true
		}
	}
}

func (w *watch) end() {
	unix.Close(w.fd)
	w.changes() // or the signal would come when it is blocked no more
	unix.PthreadSigmask(unix.SIG_SETMASK, &w.before, nil)
	runtime.UnlockOSThread()
}
