package overlay

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namespaces are the user namespaces whose maps idmapped lowers have. A namespace costs a fork, and the same few maps
// come again and again.
var namespaces = &namespaceCache{limit: 32}

// A namespaceCache keeps the descriptors of the last user namespaces used.
type namespaceCache struct {
	limit   int
	mu      sync.Mutex
	entries []namespace // most recently used last
}

type namespace struct {
	maps string
	fd   int
}

// open returns a descriptor of a user namespace with the maps of m. The caller closes it.
func (c *namespaceCache) open(m *IDMap) (int, error) {
	if err := m.Validate(); err != nil {
		return -1, err
	}
	maps := lines(m.UIDs) + "\n" + lines(m.GIDs)
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.entries, func(n namespace) bool { return n.maps == maps })
	var n namespace
	if i >= 0 {
		n = c.entries[i]
		c.entries = slices.Delete(c.entries, i, i+1)
	} else {
		fd, err := newUserNamespace(m)
		if err != nil {
			return -1, fmt.Errorf("make a user namespace: %w", err)
		}
		n = namespace{maps: maps, fd: fd}
	}
	c.entries = append(c.entries, n)
	if len(c.entries) > c.limit {
		unix.Close(c.entries[0].fd)
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	fd, err := unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate the descriptor of a user namespace: %w", err)
	}
	return fd, nil
}

// newUserNamespace makes a user namespace with the maps of m and returns its descriptor.
//
// A namespace is made with a process, and a Go program may not fork: its child has one thread, and any lock may be
// held for ever. So the child runs nothing but two system calls: it sleeps, and exits if nobody has killed it.
func newUserNamespace(m *IDMap) (int, error) {
	pid, errno := cloneSleeper()
	if errno != 0 {
		return -1, fmt.Errorf("clone a process: %w", errno)
	}
	defer reap(pid)
	defer unix.Kill(pid, unix.SIGKILL)
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, file := range []struct{ name, text string }{{"uid_map", lines(m.UIDs)}, {"gid_map", lines(m.GIDs)}} {
		if err := writeMap(proc+file.name, file.text); err != nil {
			return -1, err
		}
	}
	fd, err := unix.Open(proc+"ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a user namespace: %w", err)
	}
	return fd, nil
}

// What the sleeper passes to the kernel: it must not be on a stack that may have to grow.
var (
	sleep      = unix.Timespec{Sec: 10}
	allSignals = ^uint64(0)
)

// cloneSleeper starts a process in a new user namespace that ends by itself. It sends no SIGCHLD, and a wait for any
// child does not see it (wait(2), __WCLONE), so the program around this one does not notice. Sharing the descriptor
// table keeps its end from flushing every open file.
//
//go:norace
//go:noinline
func cloneSleeper() (int, syscall.Errno) {
	var pid uintptr
	var errno syscall.Errno
	const flags = unix.CLONE_NEWUSER | unix.CLONE_FILES
	if runtime.GOARCH == "s390x" { // the stack comes first there
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, 0, flags, 0, 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	}
	if pid == 0 && errno == 0 {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(&sleep)), uintptr(unsafe.Pointer(&allSignals)), 8, 0)
		for {
			syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
		}
	}
	return int(pid), errno
}

func reap(pid int) {
	for {
		_, err := unix.Wait4(pid, nil, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// writeMap writes a map in one call, which is all the kernel takes.
func writeMap(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
