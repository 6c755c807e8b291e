package store_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// TestLanesInAnyOrder: which of several new equal files claimed a number first does not depend on which is published
// first, and no inode is lost for it: the next root shares all of them.
func TestLanesInAnyOrder(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	add := func(id string, names ...string) map[uint64]bool {
		l := stage(t, r, store.StageOptions{})
		for _, name := range names {
			l.put(name, regular(0o644, 1000), "hello")
		}
		slices.SortFunc(l.files, func(a, b placedFile) int { return strings.Compare(a.name, b.name) })
		slices.SortFunc(l.list.Files, func(a, b object.TreeFile) int { return strings.Compare(a.Name, b.Name) })
		l.publish("layer/"+id, home+"/"+id)
		inodes := map[uint64]bool{}
		for _, name := range names {
			inodes[ino(t, home+"/"+id+"/tree/"+name)] = true
		}
		return inodes
	}
	first := add("first", "c", "a", "d", "b") // published as a, b, c, d
	for n := range add("second", "a", "b", "c", "d") {
		if !first[n] {
			t.Error("the second root has an inode that the first has not")
		}
	}
}
