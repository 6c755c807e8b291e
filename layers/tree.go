package layers

import (
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A layerTree is a layer in memory while its tar is read. It is made for layers of a million entries: a name costs a node (20 bytes),
// its bytes and some 8 bytes of index, an inode 72 bytes, and nothing points, so that the garbage collector passes it by.
//
// The reader of the tar owns the nodes. The fields of an inode that say where it was placed belong to the worker that
// places it, until the workers are drained.
type layerTree struct {
	nodes  slab[node]
	inodes slab[inode]
	names  textArena
	index  nameIndex
	metas  metaTable
	count  int64 // live nodes
}

type (
	nodeID  uint32 // 0 is no node, rootNode the root
	inodeID uint32
)

const (
	noNode   nodeID = 0
	rootNode nodeID = 1
)

// A nodeKind says what a name stands for.
type nodeKind uint8

const (
	kindNone     nodeKind = iota // removed
	kindDir                      // inode.val is the first child
	kindFile                     // inode.val is the size
	kindSymlink                  // inode.val is where the target is, and its length
	kindRawLink                  // a symlink whose target is not UTF-8
	kindDevice                   // char or block; inode.val is major<<32 | minor
	kindFifo                     //
	kindWhiteout                 // has no inode
)

// Flags of a node.
const (
	nodeOpaque  uint8 = 1 << iota // a directory that hides what is below
	nodeImplied                   // a directory that the tar did not list
	nodeMade                      // the name exists on disk, or a worker has it in hand
	nodeMerged                    // of a merged tree: a directory that several layers have
	nodeTwice                     // and that is to be there twice
)

// A node is a name in a directory.
type node struct {
	name   textRef32
	parent nodeID
	next   nodeID // sibling; the order means nothing before sortTree
	inode  inodeID
	nlen   uint8
	kind   nodeKind
	flags  uint8
}

// Flags of an inode.
const (
	inodeStale   uint8 = 1 << iota // its metadata changed after it was placed
	inodePrivate                   // must be an inode of its own
)

// An inode is what one or more names stand for.
type inode struct {
	sum    object.Checksum // of the file object or of the dirtree
	sec    int64           // modification time as the tree shall have it
	val    uint64
	nsec   uint32
	meta   metaID
	lane   uint32 // of a directory: its depth
	names  uint32 // how many nodes have it
	home   nodeID // a name that exists on disk; in a merged tree, the number of the layer
	flags  uint8
	placed store.Placement
}

func (i *inode) mtime() store.Time     { return store.Time{Sec: i.sec, Nsec: i.nsec} }
func (i *inode) setMTime(t store.Time) { i.sec, i.nsec = t.Sec, t.Nsec }

// newLayerTree makes a tree with an implied root, in the memory of a region, or of the heap if that is nil.
func newLayerTree(root meta, from *region) *layerTree {
	t := &layerTree{}
	t.nodes.from, t.inodes.from, t.names.from = from, from, from
	t.index.init()
	t.nodes.add() // 0 is no node
	t.inodes.add()
	t.metas.add(meta{})
	id := t.add(noNode, "", kindDir)
	n := t.node(id)
	n.flags = nodeImplied | nodeMade
	t.inode(n.inode).meta = t.metas.add(root)
	return t
}

func (t *layerTree) node(id nodeID) *node    { return t.nodes.at(uint32(id)) }
func (t *layerTree) inode(id inodeID) *inode { return t.inodes.at(uint32(id)) }

// inodeOf returns the inode of a node that has one.
func (t *layerTree) inodeOf(id nodeID) *inode { return t.inode(t.node(id).inode) }

// name returns a node's raw name.
func (t *layerTree) name(id nodeID) string {
	n := t.node(id)
	return t.names.get(n.name, int(n.nlen))
}

// nameView is name without a copy, for comparing.
func (t *layerTree) nameView(id nodeID) []byte {
	n := t.node(id)
	return t.names.view(n.name, int(n.nlen))
}

// child returns the node of that name in a directory.
func (t *layerTree) child(dir nodeID, name string) nodeID { return t.index.find(t, dir, name) }

// add makes a node and an inode for it, unless it is a whiteout. The name must be free.
func (t *layerTree) add(dir nodeID, name string, kind nodeKind) nodeID {
	id := t.addName(dir, name, kind)
	if kind != kindWhiteout {
		ino, i := t.inodes.add()
		i.names = 1
		i.home = id
		t.node(id).inode = inodeID(ino)
		if kind == kindDir && dir != noNode {
			i.lane = t.inodeOf(dir).lane + 1
		}
	}
	return id
}

func (t *layerTree) addName(dir nodeID, name string, kind nodeKind) nodeID {
	raw, n := t.nodes.add()
	id := nodeID(raw)
	n.name, n.nlen, n.kind, n.parent = t.names.add(name), uint8(len(name)), kind, dir
	t.count++
	if dir != noNode {
		d := t.inodeOf(dir)
		n.next = nodeID(d.val)
		d.val = uint64(id)
		t.index.insert(t, id)
	}
	return id
}

// link makes a further name of the inode of node to.
func (t *layerTree) link(dir nodeID, name string, to nodeID) nodeID {
	target := t.node(to)
	id := t.addName(dir, name, target.kind)
	t.node(id).inode = target.inode
	t.inode(target.inode).names++
	return id
}

// drop forgets a node. If it is a directory, its children must have been dropped before. The node stays in its directory's chain
// as kindNone until the chain is sorted.
func (t *layerTree) drop(id nodeID) {
	n := t.node(id)
	t.index.remove(t, id)
	if n.kind != kindWhiteout {
		t.inode(n.inode).names--
	}
	n.kind, n.flags = kindNone, 0
	t.count--
}

// dropAll forgets a node and all below it.
func (t *layerTree) dropAll(id nodeID) {
	t.dropContent(id)
	t.drop(id)
}

// dropContent forgets all that is in a directory.
func (t *layerTree) dropContent(id nodeID) {
	if t.node(id).kind == kindDir {
		_ = t.children(id, func(c nodeID) error {
			t.dropAll(c)
			return nil
		})
	}
}

// children calls fn for each live child of a directory; fn may drop it.
func (t *layerTree) children(dir nodeID, fn func(nodeID) error) error {
	for c := nodeID(t.inodeOf(dir).val); c != noNode; {
		n := t.node(c)
		next := n.next
		if n.kind != kindNone {
			if err := fn(c); err != nil {
				return err
			}
		}
		c = next
	}
	return nil
}

// isSymlink says whether a node is a symlink of either kind.
func (t *layerTree) isSymlink(id nodeID) bool {
	k := t.node(id).kind
	return k == kindSymlink || k == kindRawLink
}

// targetLen returns the length of a symlink's target.
func (i *inode) targetLen() int64 { return int64(i.val & 0xffff) }

// target returns the target of a symlink.
func (t *layerTree) target(id nodeID) string {
	v := t.inodeOf(id).val
	return t.names.get(textRef32(v>>16), int(v&0xffff))
}

// setTarget is for a symlink; a target is at most maxTarget bytes long.
func (t *layerTree) setTarget(id nodeID, target string) {
	t.inodeOf(id).val = uint64(t.names.add(target))<<16 | uint64(len(target))
}

// private says whether a regular file gets an inode of its own for its path, so that its link count is exact: programs that check
// it look at files under etc/ and var/, but not under var/lib and var/cache.
func (t *layerTree) private(id nodeID) bool {
	top, second := id, noNode
	for p := t.node(top).parent; p != rootNode && p != noNode; p = t.node(top).parent {
		top, second = p, top
	}
	if second == noNode {
		return false // in the root itself
	}
	switch t.name(top) {
	case "etc":
		return true
	case "var":
		name := t.name(second)
		return second == id || name != "lib" && name != "cache"
	}
	return false
}

// path returns a node's path relative to the root, "." for the root.
func (t *layerTree) path(id nodeID) string {
	if id == rootNode {
		return "."
	}
	var parts []string
	for ; id != rootNode && id != noNode; id = t.node(id).parent {
		parts = append(parts, t.name(id))
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}
