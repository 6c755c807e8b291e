package driver

import "sync"

// A graphroot is what this process did in one graphroot, and has still to undo or to write. It belongs to the process and not to one
// driver: containers/storage takes another driver whenever it finds that some process has shut the store down, even at the beginning
// of its own Shutdown. The one that it gives up is never cleaned up, though calls go on that began with it.
type graphroot struct {
	mounts    *mountTable
	unwritten unwritten

	newestMu sync.Mutex
	newest   *Driver
}

// A graphrootKey tells apart what containers/storage tells apart: records of mounts are in the runroot.
type graphrootKey struct{ home, runHome, imageStore string }

var used struct {
	mu sync.Mutex
	of map[graphrootKey]*graphroot
}

// graphrootOf returns what this process did in the graphroot of d, which from the first time on is all that it changes there.
func graphrootOf(d *Driver) *graphroot {
	used.mu.Lock()
	defer used.mu.Unlock()
	key := graphrootKey{d.home, d.runHome, d.imageStore}
	g := used.of[key]
	if g == nil {
		if used.of == nil {
			used.of = make(map[graphrootKey]*graphroot)
		}
		g = &graphroot{mounts: newMountTable(), unwritten: unwritten{records: d.markRecords()}}
		used.of[key] = g
	}
	return g
}

// handTo notes that d is the driver from now on.
func (g *graphroot) handTo(d *Driver) {
	g.newestMu.Lock()
	old := g.newest
	g.newest = d
	g.newestMu.Unlock()
	if old != nil {
		old.retire()
	}
}
