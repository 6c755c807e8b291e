package layers

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestTreeAgainstMap makes and drops names at random and compares with a map.
func TestTreeAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var memory region
	defer memory.free()
	tree := newLayerTree(meta{mode: unix.S_IFDIR | 0o755}, &memory)
	type key struct {
		dir  nodeID
		name string
	}
	want := make(map[key]nodeID)
	dirs := []nodeID{rootNode}
	for i := range 200_000 {
		k := key{dirs[r.IntN(len(dirs))], strings.Repeat("n", r.IntN(40)) + fmt.Sprint(r.IntN(3000))}
		id, ok := want[k]
		if got := tree.child(k.dir, k.name); got != id {
			t.Fatalf("step %d: %v is node %d, want %d", i, k, got, id)
		}
		switch {
		case !ok && r.IntN(200) == 0:
			id = tree.add(k.dir, k.name, kindDir)
			dirs = append(dirs, id)
			want[k] = id
		case !ok:
			want[k] = tree.add(k.dir, k.name, kindFile)
		case tree.node(id).kind == kindFile:
			tree.drop(id)
			delete(want, k)
		}
	}
	if tree.count != int64(len(want))+1 {
		t.Errorf("%d nodes, want %d", tree.count, len(want)+1)
	}
	for k, id := range want {
		if tree.child(k.dir, k.name) != id || tree.name(id) != k.name {
			t.Fatalf("%v is not node %d", k, id)
		}
	}
	seen := 0
	for _, d := range dirs {
		must := func(nodeID) error { seen++; return nil }
		_ = tree.children(d, must)
	}
	if seen != len(want) {
		t.Errorf("%d children, want %d", seen, len(want))
	}
}

// TestEntrySize holds the memory of an entry: a name and an inode of its own.
func TestEntrySize(t *testing.T) {
	if n, i := unsafe.Sizeof(node{}), unsafe.Sizeof(inode{}); n > 20 || i > 72 {
		t.Errorf("a node takes %d bytes, an inode %d", n, i)
	}
}

func TestArena(t *testing.T) {
	var a textArena
	type kept struct {
		ref  textRef32
		text string
	}
	var all []kept
	for i := range 5000 {
		s := strings.Repeat("t", i%4000) + fmt.Sprint(i)
		all = append(all, kept{a.add(s), s}, kept{a.add(""), ""})
	}
	for _, k := range all {
		if got := a.get(k.ref, len(k.text)); got != k.text {
			t.Fatalf("got %.20q, want %.20q", got, k.text)
		}
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string][2]string{
		"": {"/", "."}, ".": {"/", "."}, "/": {"/", "."}, "..": {"/", "."}, "a/..": {"/", "."}, "a": {"/", "a"}, "/a/": {"/", "a"},
		"./a//b": {"/a", "b"}, "../../a/b/../c": {"/a", "c"},
	} {
		if dir, base := splitName(name); dir != want[0] || base != want[1] {
			t.Errorf("%q: %q, %q", name, dir, base)
		}
	}
}

func TestPrivatePlaces(t *testing.T) {
	tree := newLayerTree(meta{mode: unix.S_IFDIR | 0o755}, nil)
	for path, want := range map[string]bool{
		"etc/x": true, "etc/a/b/c": true, "x": false, "etc2/x": false, "usr/etc/x": false, "var/x": true, "var/log/x": true,
		"var/lib/x": false, "var/cache/a/x": false, "var/library/x": true,
	} {
		at := rootNode
		parts := strings.Split(path, "/")
		for i, p := range parts {
			next := tree.child(at, p)
			if next == noNode {
				kind := kindDir
				if i == len(parts)-1 {
					kind = kindFile
				}
				next = tree.add(at, p, kind)
			}
			at = next
		}
		if got := tree.private(at); got != want {
			t.Errorf("%s: %v", path, got)
		}
		if got := tree.path(at); got != path {
			t.Errorf("path of %s is %s", path, got)
		}
	}
}

func TestOwnable(t *testing.T) {
	o := ownable{uids: []IDMap{{0, 1000, 1}, {1, 100000, 10}}, gids: []IDMap{{0, 1000, 1}}}
	for id, want := range map[[2]uint32]bool{{0, 0}: true, {10, 0}: true, {11, 0}: false, {0, 1}: false} {
		if got := o.can(id[0], id[1]); got != want {
			t.Errorf("%v: %v", id, got)
		}
	}
	if o, err := readOwnable(); err != nil || !o.can(0, 0) {
		t.Errorf("this process: %+v, %v", o, err)
	}
}

func TestLayerRefs(t *testing.T) {
	for id, want := range map[string]string{"abc-09": "abc-09", "-a": "_2D_a", "a_b": "a__b", "a.b:c": "a_2E_b_3A_c", "é": "_C3__A9_"} {
		if got := escapeRef(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

func TestDecodeRecord(t *testing.T) {
	for _, bad := range []string{"", "{}", "x\n", "{\"depth\":1}\n", "{\"depth\":1,\"parent\":\"a\"}\nb\n", "{\"depth\":0,\"commit\":\"12\"}\n", "{\"depth\":2,\"parent\":\"a\"}\na\n"} {
		if l, err := decodeRecord("x", []byte(bad), true); err == nil {
			t.Errorf("%q: %+v", bad, l)
		}
	}
	l := &Layer{ID: "x", Parent: "a", Ancestors: []string{"a", "b"}, Size: 5, Entries: 6, ReadWrite: true}
	l.Commit[3] = 7
	b, err := encodeRecord(l)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecord("x", b, true)
	if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", l) {
		t.Errorf("%+v, %v", got, err)
	}
}
