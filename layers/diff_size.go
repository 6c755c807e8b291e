package layers

// Usage is what a directory tree takes: bytes of content (not of blocks) and inodes.
type Usage struct {
	Size   int64
	Inodes int64
}

// DiskUsage sums a tree: the sizes of everything but directories, hardlinks once, and the number of its inodes, the
// root included. Entries that vanish meanwhile are passed over. A path that is no directory counts as one inode.
func DiskUsage(path string) (Usage, error) {
	panic("not written yet")
}

// DiffSize returns DiskUsage's bytes: what the overlay driver says is the size of a layer over its parent.
func DiffSize(upper string) (int64, error) {
	panic("not written yet")
}

// ChangesSize returns the bytes in the added and modified files of a list that NaiveChanges made for newDir, hardlinks once.
func ChangesSize(newDir string, changes []Change) (int64, error) {
	panic("not written yet")
}
