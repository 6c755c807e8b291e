package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// StageOptions say how files are placed.
type StageOptions struct {
	SharedTimes bool      // files that differ only in their time may share an inode
	NoSync      bool      // publish without waiting for the disk
	Ancestors   []*Inodes // inodes that must not be used: those of the trees below this one
	Sources     []*Repo   // other repositories on this filesystem whose objects may be linked
	SyncAll     bool      // Publish also makes durable what the caller puts into Dir by itself
	Meet        string    // directory on a tmpfs in which stages of several processes tell each other what they write, "" for none
}

// A Stage is a directory in which one tree is made. PutFile and its kin may be called from several goroutines; Publish,
// WriteInodes and Close come after them.
type Stage struct {
	near     []*root // the other repositories that links can come from
	r        *root
	o        StageOptions
	features Features
	cloneMin int64 // files below this size are rather written than cloned
	name     string
	dir      *os.File // staging/<name>
	own      *os.File // .objects in it
	lock     int      // holds stageLock
	spare    atomic.Uint64
	avoid    avoid
	relabel  relabeller // its map is guarded by mu
	early    early
	fresh    fresh
	kept     keptMetadata

	mu       sync.Mutex
	claims   laneCounts                            // per laneHash: the next lane that no file of this stage has asked for
	used     lanesInUse                            // inodes of the tree that are shared, with their lanes
	filed    map[uint64]laneID                     // those of them that have a lane file
	loose    map[object.Checksum]bool              // objects in .objects; false while one is being made
	held     []object.Name                         // the same in order
	keys     []index.Key                           // of all that the commit will reach
	lists    struct{ of, written object.Checksum } // the commit that has these keys, and the one whose list is staged
	metas    []object.Name                         // metadata objects in the order in which they were put
	put      map[object.Name]struct{}
	written  []object.Name // new objects, kept with NoSync only
	handles  map[handleKey]unix.FileHandle
	settled  map[string]settlement
	prefixes [256]prefix

	published atomic.Int64 // how many file objects of the tree, as far as Publish has come
}

// A prefix remembers what objects/xx looked like before anything was looked up in it. If it still looks so under the
// lock of Publish, nothing was deleted from it in between.
type prefix struct {
	seen, settled bool
	changed       unix.Timespec
}

// NewStage makes an empty stage. Nothing in it is visible to others before Publish. In Dir the names .lock and .objects
// are taken.
func (r *Repo) NewStage(o StageOptions) (*Stage, error) {
	if err := r.root.writable(); err != nil {
		return nil, err
	}
	if err := r.root.settleUnsynced(context.Background()); err != nil {
		return nil, err
	}
	r.root.keepReserve()
	f, err := r.root.features()
	if err != nil {
		return nil, err
	}
	s := &Stage{
		r: r.root, o: o, features: f, lock: -1,
		filed: map[uint64]laneID{},
		loose: map[object.Checksum]bool{}, put: map[object.Name]struct{}{}, settled: map[string]settlement{},
		handles: map[handleKey]unix.FileHandle{}, avoid: avoid{lists: o.Ancestors},
	}
	s.fresh.all = o.SyncAll || o.NoSync || !r.root.ordered()
	s.near = near(r.root, o.Sources)
	s.relabel = relabelled(r.root, f, o.Sources)
	if s.cloneMin, err = r.root.cloneMin(f); err != nil {
		return nil, err
	}
	for {
		err := s.open()
		if err == nil {
			return s, nil
		}
		s.leave()
		if !errors.Is(err, errTaken) {
			return nil, fmt.Errorf("make stage: %w", err)
		}
	}
}

// near returns those of the other repositories that a link can come from: those on this one's mount. The others can still be copied from.
func near(r *root, others []*Repo) []*root {
	var out []*root
	var own, st unix.Statx_t
	if unix.Statx(int(r.dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &own) != nil {
		return nil
	}
	for _, o := range others {
		err := unix.Statx(int(o.root.dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
		if err == nil && st.Mnt_id == own.Mnt_id && st.Dev_major == own.Dev_major && st.Dev_minor == own.Dev_minor {
			out = append(out, o.root)
		}
	}
	return out
}

// errTaken says that Recover took a new directory for one of a dead process before it was locked.
var errTaken = errors.New("taken for a leftover")

// lockedDir makes a directory that Recover leaves alone as long as the descriptor is open.
func (r *root) lockedDir(path string) (lock int, err error) {
	if err := r.disk.mkdir(r.fd(), path); err != nil {
		return -1, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	lock, err = r.tryAcquire(path+"/"+stageLock, unix.F_WRLCK)
	if err == unix.EAGAIN || errors.Is(err, unix.ENOENT) {
		err = errTaken
	}
	if err != nil {
		return -1, err
	}
	var locked, named unix.Stat_t
	if err := unix.Fstat(lock, &locked); err != nil {
		unix.Close(lock)
		return -1, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := lstat(r.fd(), path+"/"+stageLock, &named); err != nil || named.Ino != locked.Ino {
		unix.Close(lock)
		return -1, errTaken
	}
	return lock, nil
}

func (s *Stage) open() (err error) {
	if s.name, err = freshName(); err != nil {
		return err
	}
	path := stagingDir + "/" + s.name
	if s.lock, err = s.r.lockedDir(path); err != nil {
		return err
	}
	s.r.flights.enter(s.meet())
	if err := s.r.disk.mkdir(s.r.fd(), path+"/"+stageObjects); err != nil {
		return err
	}
	for name, f := range map[string]**os.File{"": &s.dir, "/" + stageObjects: &s.own} {
		fd, err := openDir(s.r.fd(), path+name)
		if err != nil {
			return err
		}
		*f = os.NewFile(uintptr(fd), s.r.path+"/"+path+name)
	}
	return nil
}

// meet returns the path of the file in which stages of this repository meet, or "".
func (s *Stage) meet() string {
	var st unix.Stat_t
	if s.o.Meet == "" || s.o.NoSync || unix.Fstat(s.r.fd(), &st) != nil {
		return ""
	}
	return fmt.Sprintf("%s/pulls-%x-%x", s.o.Meet, st.Dev, st.Ino)
}

// Dir returns the stage's directory, where the caller makes its tree. It is open as long as the stage is.
func (s *Stage) Dir() *os.File { return s.dir }

// Path returns the path of Dir.
func (s *Stage) Path() string { return s.dir.Name() }

// Name returns the stage's own name, unique in the repository.
func (s *Stage) Name() string { return s.name }

// Close removes what is left of the stage. What was published under the ref staged/<name>, and is still called that, or
// was published halfway, goes too.
func (s *Stage) Close() error {
	if s.dir == nil {
		return nil
	}
	err := s.r.dropStage(context.Background(), s.name)
	s.leave()
	return err
}

// leave gives up a stage without removing it: Recover does that.
func (s *Stage) leave() {
	_ = s.early.wait() // Publish has asked, if it came to that
	_ = s.fresh.close()
	s.claims.table.free()
	s.used.zero.free()
	for _, f := range []**os.File{&s.dir, &s.own} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
	if s.lock >= 0 {
		s.r.flights.leave()
		unix.Close(s.lock)
		s.lock = -1
	}
}

// spareName returns a name in .objects that nothing else uses.
func (s *Stage) spareName() string { return fmt.Sprintf("spare-%d", s.spare.Add(1)) }
