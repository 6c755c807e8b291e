package layers

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// splitName takes a name of a layer tar apart as containers/storage does: it is relative to the layer's root however it is written,
// and "." and ".." are resolved as text. dir begins with "/"; base is "." for the root.
func splitName(name string) (dir, base string) {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return "/", "."
	}
	i := strings.LastIndexByte(clean, '/')
	dir, base = clean[:i], clean[i+1:]
	if dir == "" {
		dir = "/"
	}
	return dir, base
}

// A place is where a path leads in a layer: a node that exists, and names below it that do not.
type place struct {
	node    nodeID
	missing []string
}

// A resolver finds directories of a layer as they are at the moment. Symlinks of the layer are followed, with the layer's root as
// the root, whether or not what they name exists; ".." takes away the last component, as it does once no symlink is left.
type resolver struct {
	tree *layerTree

	lastDir  string // result of the last search; forgotten when a directory or a symlink goes
	lastNode nodeID
}

func (r *resolver) forget() { r.lastDir, r.lastNode = "", noNode }

// locate returns the place of a directory, given as splitName returns it. The error is ELOOP if symlinks do not end, and ENOTDIR
// if something that is no directory is in the way.
func (r *resolver) locate(dir string) (place, error) {
	if r.lastNode != noNode && r.lastDir == dir {
		return place{node: r.lastNode}, nil
	}
	at := rootNode
	for rest := dir; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == "" {
			continue
		}
		next := r.tree.child(at, part)
		if next == noNode || r.tree.node(next).kind != kindDir {
			return r.locateSlowly(dir)
		}
		at = next
	}
	r.lastDir, r.lastNode = strings.Clone(dir), at
	return place{node: at}, nil
}

func (r *resolver) locateSlowly(dir string) (place, error) {
	found := []nodeID{rootNode}
	var missing []string
	links := 0
	for rest := dir; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if len(missing) > 0 {
				missing = missing[:len(missing)-1]
			} else if len(found) > 1 {
				found = found[:len(found)-1]
			}
			continue
		}
		next := noNode
		if top := found[len(found)-1]; len(missing) == 0 && r.tree.node(top).kind == kindDir {
			next = r.tree.child(top, part)
		}
		if next == noNode {
			missing = append(missing, part)
			continue
		}
		if !r.tree.isSymlink(next) {
			found = append(found, next)
			continue
		}
		if links++; links > maxSymlinks {
			return place{}, unix.ELOOP
		}
		target := r.tree.target(next)
		if strings.HasPrefix(target, "/") {
			found, missing = found[:1], nil
		}
		rest = target + "/" + rest
	}
	p := place{node: found[len(found)-1], missing: missing}
	if r.tree.node(p.node).kind != kindDir {
		return p, unix.ENOTDIR
	}
	return p, nil
}
