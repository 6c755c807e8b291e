// Locks, in the order in which they are taken. All are OFD locks (fcntl F_OFD_SETLK on the whole file), as libostree
// takes them; each holder opens the file for itself, so that goroutines of one process exclude each other like
// processes do, and the kernel frees what a dead process held. No lock file ever needs to be cleaned up.
//
//  1. The lock of a stage (staging/<name>/.lock) or of a removal (trash/<name>/.lock), exclusive, from its beginning to
//     its end. Recover takes it without waiting: whoever does not hold it any more is dead. Nobody waits for it.
//  2. The turn (extensions/ostree-storage/turn), exclusive, of those who delete objects: one after the other, and each
//     keeps it for a pause after it has let go of the rest. So several deletions leave publishers a gap between two of them.
//     If it was held for most of maxSeries the next holds the turn for foreignGap and nothing else, for libostree looks for
//     lock 4 once a second, and gives up after 30 such looks: short gaps it misses.
//  3. The gate (extensions/ostree-storage/gate). Publishers hold it shared while they wait for lock 4, and no longer.
//     Those who delete objects hold it exclusive from before they wait for lock 4 until they have released that. So new
//     publishers queue behind a waiting deletion, which otherwise overlapping publishers would keep out for as long as
//     they come. libostree does not know the gate; it only misses the fairness.
//  4. The repository's lock (.lock), shared to publish, exclusive to delete objects. Whoever holds it exclusive lets go
//     after maxExclusive, pauses for others and comes again; what it decided before is checked against the refs again then.
//     Whoever publishes looks at the gate every maxShared. It lets go if a deletion waits there, and else after maxUnwanted,
//     and sees in its last hold, from which on a ref protects it, that all that it published is still there.
//
// Never taken together with locks of other packages: nothing is called back while 3 or 4 is held, except for the
// caller's walk of its own staged tree in Publish. Reading takes no lock. A deletion of refs can only make garbage and
// needs none; it takes lock 4 shared for a moment if that is to be had (lockForRefs). Lane files without a tree, staging
// and trash are nobody's roots and are deleted without lock 4.

package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxExclusive = 50 * time.Millisecond  // how long objects are deleted in one go
	pause        = 2 * time.Millisecond   // between two such goes: long enough for all that poll to get in
	pollGate     = 500 * time.Microsecond // how often a waiting process asks, at first
	pollForeign  = time.Millisecond       // and later, when something of libostree holds the lock for long

	maxSeries  = 8 * time.Second         // how long deletions follow one another without foreignGap
	foreignGap = 1500 * time.Millisecond // in which whoever looks once a second looks, on a busy machine too
)

// How long a publisher keeps the lock in one go: if a deletion waits at the gate, and if none does, for there are deletions that
// know no gate. Variables for the sake of tests.
var (
	maxShared   = 25 * time.Millisecond
	maxUnwanted = 150 * time.Millisecond
)

// acquire opens name and locks it, waiting until it can. Closing the descriptor unlocks.
func (r *root) acquire(ctx context.Context, name string, kind int16) (fd int, err error) {
	begin := time.Now()
	for {
		fd, err := r.tryAcquire(name, kind)
		if err != unix.EAGAIN {
			return fd, err
		}
		wait := pollGate
		if time.Since(begin) > time.Second {
			wait = pollForeign
		}
		select {
		case <-ctx.Done():
			return -1, fmt.Errorf("wait for lock %s: %w", name, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// tryAcquire opens name and locks it, or fails with EAGAIN if another holds the lock.
func (r *root) tryAcquire(name string, kind int16) (fd int, err error) {
	fd, err = retry(func() (int, error) {
		return unix.Openat(r.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return -1, fmt.Errorf("open lock %s: %w", name, err)
	}
	_, err = retry(func() (int, error) {
		l := unix.Flock_t{Type: kind, Whence: 0}
		return 0, unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
	})
	switch err {
	case nil:
		return fd, nil
	case unix.EAGAIN, unix.EACCES:
		err = unix.EAGAIN
	default:
		err = fmt.Errorf("lock %s: %w", name, err)
	}
	unix.Close(fd)
	return -1, err
}

// lockShared takes the repository's lock to publish.
func (r *root) lockShared(ctx context.Context) (unlock func(), err error) {
	gate, err := r.acquire(ctx, gateFile, unix.F_RDLCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(gate)
	fd, err := r.acquire(ctx, lockFile, unix.F_RDLCK)
	if err != nil {
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}

// maxCourtesy is how long a deletion of refs waits for a prune.
const maxCourtesy = time.Second

// lockForRefs keeps a prune of libostree from listing refs while some go: it fails if one vanishes between its readdir and
// its read. Nothing is lost then, so this does not wait for long, and goes on without the lock; nor does it wait at the
// gate, since it is no publisher and is done at once.
func (r *root) lockForRefs() (unlock func(), locked bool) {
	ctx, cancel := context.WithTimeout(context.Background(), maxCourtesy)
	defer cancel()
	fd, err := r.acquire(ctx, lockFile, unix.F_RDLCK)
	if err != nil {
		return func() {}, false
	}
	return func() { unix.Close(fd) }, true
}

// tryLockExclusive takes the repository's lock to delete if nobody is in the way.
func (r *root) tryLockExclusive() (unlock func(), err error) {
	gate, err := r.tryAcquire(gateFile, unix.F_WRLCK)
	if err != nil {
		return nil, err
	}
	fd, err := r.tryAcquire(lockFile, unix.F_WRLCK)
	if err != nil {
		unix.Close(gate)
		return nil, err
	}
	return func() { unix.Close(fd); unix.Close(gate) }, nil
}

// lockExclusive takes the repository's lock to delete.
func (r *root) lockExclusive(ctx context.Context) (unlock func(), err error) {
	turn, err := r.acquire(ctx, turnFile, unix.F_WRLCK)
	if err != nil {
		return nil, err
	}
	if err := r.series.begin(ctx); err != nil {
		unix.Close(turn)
		return nil, err
	}
	gate, err := r.acquire(ctx, gateFile, unix.F_WRLCK)
	if err != nil {
		unix.Close(turn)
		return nil, err
	}
	fd, err := r.acquire(ctx, lockFile, unix.F_WRLCK)
	if err != nil {
		unix.Close(gate)
		unix.Close(turn)
		return nil, err
	}
	begin := time.Now()
	return func() {
		unix.Close(fd)
		unix.Close(gate)
		r.series.end(begin)
		time.AfterFunc(pause, func() { unix.Close(turn) })
	}, nil
}

// A series is what this process deletes without foreignGap. Each process counts for itself: those that take turns leave more gaps than
// one does, and the start of a process is one.
type series struct {
	mu   sync.Mutex
	from time.Time     // when it began
	last time.Time     // when the latest hold ended
	held time.Duration // all holds together
}

// begin waits for foreignGap if the lock was held for most of maxSeries. The caller has the turn, so that no other deletion fills the gap.
func (s *series) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	long := now.Sub(s.from)
	if now.Sub(s.last) < foreignGap && long < maxSeries {
		return nil
	}
	if now.Sub(s.last) < foreignGap && s.held > long/2 { // else whoever looks 30 times sees it free
		select {
		case <-ctx.Done():
			return fmt.Errorf("leave a gap for programs that look for lock %s once a second: %w", lockFile, ctx.Err())
		case <-time.After(foreignGap):
		}
	}
	s.from, s.held = time.Now(), 0
	return nil
}

// end notes that a hold ended.
func (s *series) end(begin time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	s.held += s.last.Sub(begin)
}

// A sharing holds the repository's lock shared, with gaps. Several goroutines may take turns at once; none is in one during a gap.
type sharing struct {
	r   *root
	ctx context.Context

	mu     sync.RWMutex // held for reading in a turn
	unlock func()       // nil while the lock is not held
	begin  time.Time
	looked time.Time // when nobody wanted it, or begin
	gaps   int       // how often it let go
}

func (r *root) share(ctx context.Context) (*sharing, error) {
	h := &sharing{r: r, ctx: ctx}
	return h, h.lock()
}

// lock takes the lock, anew if it is held.
func (h *sharing) lock() (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.relock()
}

func (h *sharing) relock() (err error) {
	h.release()
	h.unlock, err = h.r.lockShared(h.ctx)
	h.begin = time.Now()
	h.looked = h.begin
	return err
}

// A turn calls f under the lock. The lock may be let go before.
type turn func(f func() error) error

// turn lets others in if it was long enough, and calls f.
func (h *sharing) turn(f func() error) error {
	h.mu.RLock()
	late := time.Since(h.looked) >= maxShared
	h.mu.RUnlock()
	if late {
		if err := h.breathe(); err != nil {
			return err
		}
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.unlock == nil { // another turn could not get it back
		return fmt.Errorf("wait for lock %s: %w", lockFile, context.Canceled)
	}
	return f()
}

func (h *sharing) breathe() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.looked) < maxShared {
		return nil
	}
	if now.Sub(h.begin) < maxUnwanted && !h.r.wanted() {
		h.looked = now
		return nil
	}
	h.gaps++
	return h.relock()
}

// wanted tells if a deletion waits for the lock. It makes and locks nothing.
func (r *root) wanted() bool {
	gate, err := retry(func() (int, error) {
		return unix.Openat(r.fd(), gateFile, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err != unix.ENOENT
	}
	defer unix.Close(gate)
	l := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(uintptr(gate), unix.F_OFD_GETLK, &l) != nil || l.Type != unix.F_UNLCK
}

// end lets go of the lock.
func (h *sharing) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release()
}

func (h *sharing) release() {
	if h.unlock != nil {
		h.unlock()
		h.unlock = nil
	}
}
