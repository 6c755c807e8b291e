package layers

import (
	"fmt"
	"slices"
	"strings"
)

// treeName returns the name that a node has in a dirtree.
func (t *layerTree) treeName(id nodeID) (name string, escaped bool) {
	raw := t.name(id)
	if t.node(id).kind == kindWhiteout {
		return treeName(whiteoutPrefix+raw, true)
	}
	return treeName(raw, false)
}

// rawName is what a node is called in a layer tar.
func (t *layerTree) rawName(id nodeID) string {
	if t.node(id).kind == kindWhiteout {
		return whiteoutPrefix + t.name(id)
	}
	return t.name(id)
}

// isSpecial says whether a node has no object.
func (t *layerTree) isSpecial(id nodeID) bool {
	k := t.node(id).kind
	return k == kindDevice || k == kindFifo || k == kindRawLink
}

// A namedNode is a child of a directory under its tree name.
type namedNode struct {
	name string
	id   nodeID // noNode for the opaque mark
	dir  bool
}

// sorted returns what a directory holds in tree order: first what is no directory, the opaque mark included, then the
// directories, both by the bytes of their tree names. Two entries of one tree name are an error.
func (t *layerTree) sorted(dir nodeID) ([]namedNode, error) {
	var list []namedNode
	if t.node(dir).flags&nodeOpaque != 0 {
		list = append(list, namedNode{name: opaqueName})
	}
	_ = t.children(dir, func(id nodeID) error {
		name, _ := t.treeName(id)
		list = append(list, namedNode{name: name, id: id, dir: t.node(id).kind == kindDir})
		return nil
	})
	slices.SortFunc(list, func(a, b namedNode) int {
		if a.dir != b.dir {
			if a.dir {
				return 1
			}
			return -1
		}
		return strings.Compare(a.name, b.name)
	})
	return list, checkClash(list)
}

// checkClash refuses a whiteout whose tree name is also that of a directory. Both names are escaped then.
func checkClash(list []namedNode) error {
	var escaped map[string]bool
	for _, e := range list {
		if !strings.HasPrefix(e.name, rawPrefix) {
			continue
		}
		if escaped[e.name] {
			return fmt.Errorf("%w: %s", errNameClash, e.name)
		}
		if escaped == nil {
			escaped = make(map[string]bool)
		}
		escaped[e.name] = true
	}
	return nil
}
