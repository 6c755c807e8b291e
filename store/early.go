package store

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// earlyBytes is how much a stage writes before it has the filesystem begin to write it out, in bytes. The syncfs of Publish
// would else find all of it in memory, with nothing left to do but to wait for the disk.
const earlyBytes = 64 << 20

// lastEarly is how much must have been written since for one more at the end, in bytes: a syncfs that finds nothing waits as well.
const lastEarly = 24 << 20

// An early is a stage's writing ahead: one syncfs at a time, beside those who fill the stage. It promises nothing; what makes
// the stage durable is the syncfs of Publish.
type early struct {
	written atomic.Int64
	busy    atomic.Bool
	group   sync.WaitGroup

	mu  sync.Mutex
	err error
}

// wrote counts bytes that were written into the stage.
func (s *Stage) wrote(n int64) {
	if s.early.written.Add(n) >= earlyBytes {
		s.writeOut()
	}
}

// WriteOut says that all files are placed: what the filesystem has not begun to write out it writes beside the work that is left
// before Publish.
func (s *Stage) WriteOut() {
	if s.early.written.Load() >= lastEarly {
		s.writeOut()
	}
}

func (s *Stage) writeOut() {
	if s.o.NoSync || !s.early.busy.CompareAndSwap(false, true) {
		return
	}
	s.early.written.Store(0)
	s.early.group.Go(func() {
		err := s.syncEarly()
		s.early.mu.Lock()
		s.early.err = errors.Join(s.early.err, err)
		s.early.mu.Unlock()
		s.early.busy.Store(false)
	})
}

// syncEarly syncs through a descriptor of its own: the kernel reports a failed write once for each.
func (s *Stage) syncEarly() error {
	fd, err := openDir(int(s.dir.Fd()), ".")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.r.disk.syncfs(fd)
}

// wait ends the writing ahead and returns what went wrong with it.
func (e *early) wait() error {
	e.group.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}
