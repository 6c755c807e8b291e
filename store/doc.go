// Package store keeps one OSTree repository in bare mode: objects, refs, the
// inodes that checkouts share (lanes), and the staging areas where new layers
// are made. Any number of processes may use a repository at a time; libostree
// may be one of them, and every state that it can see is one that `ostree fsck`
// accepts.
//
// A Stage is where a tree is made: its files are hashed in memory, linked out of
// the repository where it has an inode that may be used, and written otherwise.
// Publish makes the result part of the repository, in an order that leaves no
// torn state whenever it is cut off. Removal goes through MoveToTrash. Refs are
// the only roots: what no ref reaches is garbage.
//
// The package knows nothing of containers, layers or tars. The on-disk format is
// described in docs/format.md; the locks in lock.go; lanes in lane.go.
package store
