package layers

import "github.com/ostree-storage/ostree-storage/store"

// A dirListing is one listing of a directory in the tar.
type dirListing struct {
	sec  int64
	nsec uint32
	node nodeID    // what it was then
	name textRef32 // in the arena, if nlen is not 0; else the name is the node's path
	nlen uint16
}

// list notes a directory's listing. Only a name that leads through a symlink is kept.
func (g *ingest) list(id nodeID, name string, t store.Time) {
	_, l := g.listed.add()
	l.sec, l.nsec, l.node = t.Sec, t.Nsec, id
	dir, base := splitName(name)
	if clean := joinName(dir, base); len(clean) < 1<<16 && clean != g.tree.path(id) {
		l.name, l.nlen = g.tree.names.add(clean), uint16(len(clean))
	}
}

// joinName puts together what splitName took apart, without the slash in front.
func joinName(dir, base string) string {
	if dir == "/" {
		return base
	}
	return dir[1:] + "/" + base
}

// retime does what overlay's extraction does at its end: it goes through all listings once more, and gives each one's time to the directory that
// its name leads to by then. That is another one only where a directory or a symlink was replaced.
func (g *ingest) retime() {
	if !g.moved {
		return
	}
	for k := range g.listed.n {
		l := g.listed.at(k)
		name := g.tree.names.get(l.name, int(l.nlen))
		if name == "" {
			name = g.tree.path(l.node) // a node that is gone still has its name
		}
		dir, base := splitName(name)
		at := rootNode
		if base != "." {
			p, err := g.find.locate(dir)
			if err != nil || len(p.missing) > 0 {
				continue
			}
			at = g.tree.child(p.node, base)
		}
		if at != noNode && g.tree.node(at).kind == kindDir {
			g.tree.inodeOf(at).setMTime(store.Time{Sec: l.sec, Nsec: l.nsec})
		}
	}
}
