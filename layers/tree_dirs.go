package layers

import (
	"container/list"
	"sync"

	"golang.org/x/sys/unix"
)

// Directories of a tree that are kept open though nobody uses them at the moment: an eighth of what the process may open, for it may
// fill several trees at once and has other files, between these bounds.
const (
	minIdleDirs = 64
	maxIdleDirs = 4096
	// recentDirs is how many of them are those used last.
	recentDirs = 32
)

func idleDirs() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return minIdleDirs
	}
	return int(max(minIdleDirs, min(maxIdleDirs, l.Cur/8)))
}

// A treeDirs opens the directories of a tree that is being made, each through its parent's descriptor and never through a symlink.
type treeDirs struct {
	tree *layerTree
	keep int // how many stay open unused

	mu     sync.Mutex
	open   map[nodeID]*treeDir
	recent list.List // of *treeDir that nobody uses, the one unused longest first
	stay   list.List // of others, for which there was room: a tree is walked several times, and who keeps what was used last has nothing then
}

// A treeDir is an open directory. Release it after use.
type treeDir struct {
	fd    int
	id    nodeID
	owner *treeDirs
	users int
	idle  *list.Element
	gone  bool // removed from the tree; close it when the last user is done
}

// widened says that the process's table of descriptors has room for all directories, or will soon.
var widened sync.Once

// widen makes room in the table of descriptors, once. Where it grows bit by bit the kernel waits each time, some ten milliseconds, until all
// cores have seen it, and everybody else for who opens a directory then.
func widen(room int) {
	fd, err := openDirAt(unix.AT_FDCWD, "/")
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, room); err == nil {
		unix.Close(high)
	}
}

// newTreeDirs takes over the descriptor of the tree's root.
func newTreeDirs(t *layerTree, root int) *treeDirs {
	d := &treeDirs{tree: t, keep: idleDirs(), open: make(map[nodeID]*treeDir)}
	widened.Do(func() { go widen(d.keep) })
	d.open[rootNode] = &treeDir{fd: root, id: rootNode, owner: d, users: 1} // stays open
	return d
}

// get opens a directory of the tree that exists on disk.
func (d *treeDirs) get(id nodeID) (*treeDir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.getLocked(id)
}

func (d *treeDirs) getLocked(id nodeID) (*treeDir, error) {
	var below []nodeID // directories between an open one and id, nearest to id first
	at := id
	for d.open[at] == nil {
		below = append(below, at)
		at = d.tree.node(at).parent
	}
	h := d.use(d.open[at])
	for i := len(below) - 1; i >= 0; i-- {
		fd, err := openDirAt(h.fd, d.tree.name(below[i]))
		d.release(h)
		if err != nil {
			return nil, err
		}
		h = &treeDir{fd: fd, id: below[i], owner: d, users: 1}
		d.open[below[i]] = h
	}
	return h, nil
}

func openDirAt(dir int, name string) (int, error) {
	return retryEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func (d *treeDirs) use(h *treeDir) *treeDir {
	h.users++
	d.rouse(h)
	return h
}

// release ends a use of the directory.
func (h *treeDir) release() {
	h.owner.mu.Lock()
	defer h.owner.mu.Unlock()
	h.owner.release(h)
}

func (d *treeDirs) release(h *treeDir) {
	if h.users--; h.users > 0 {
		return
	}
	if h.gone {
		unix.Close(h.fd)
		return
	}
	h.idle = d.recent.PushBack(h)
	if d.recent.Len() <= recentDirs {
		return
	}
	old := d.recent.Remove(d.recent.Front()).(*treeDir)
	if d.stay.Len() < d.keep-recentDirs {
		old.idle = d.stay.PushBack(old)
		return
	}
	delete(d.open, old.id)
	unix.Close(old.fd)
}

// rouse takes a directory out of the list of those that nobody uses, and reports whether it was in one.
func (d *treeDirs) rouse(h *treeDir) bool {
	if h.idle == nil {
		return false
	}
	d.recent.Remove(h.idle) // which does nothing if it is in the other
	d.stay.Remove(h.idle)
	h.idle = nil
	return true
}

// forget closes a directory that is no longer in the tree.
func (d *treeDirs) forget(id nodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.open[id]
	if h == nil {
		return
	}
	delete(d.open, id)
	if d.rouse(h) {
		unix.Close(h.fd)
		return
	}
	h.gone = true
}

// close closes all directories. Nobody may use one any more.
func (d *treeDirs) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.open {
		unix.Close(h.fd)
	}
	d.open = nil
}
