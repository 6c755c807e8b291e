package layers

import (
	"context"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// Usage is what a directory tree takes: bytes of content (not of blocks) and inodes.
type Usage struct {
	Size   int64
	Inodes int64
}

// inodeKey names an inode of this machine.
type inodeKey struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inodeKey { return inodeKey{dev: uint64(st.Dev), ino: st.Ino} }

// DiskUsage sums a tree: the sizes of everything but directories, hardlinks once, and the number of its inodes, the
// root included. Entries that vanish meanwhile are passed over. A path that is no directory counts as one inode.
func DiskUsage(path string) (Usage, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return Usage{Size: st.Size, Inodes: 1}, nil
	}
	v := &usageVisitor{seen: make(map[inodeKey]struct{}), usage: Usage{Inodes: 1}}
	err := walkTree(context.Background(), path, v, func(string, error) {})
	return v.usage, err
}

// DiffSize returns DiskUsage's bytes: what the overlay driver says is the size of a layer over its parent.
func DiffSize(upper string) (int64, error) {
	u, err := DiskUsage(upper)
	return u.Size, err
}

type usageVisitor struct {
	seen  map[inodeKey]struct{} // inodes with several names
	usage Usage
}

func (v *usageVisitor) enter(string) error { return nil }
func (v *usageVisitor) leave()             {}

func (v *usageVisitor) visit(_ context.Context, e *walkEntry) error {
	if !e.isDir() {
		if e.st.Nlink > 1 {
			key := inodeOf(&e.st)
			if _, seen := v.seen[key]; seen {
				return nil
			}
			v.seen[key] = struct{}{}
		}
		v.usage.Size += e.st.Size
	}
	v.usage.Inodes++
	return nil
}

// ChangesSize returns the bytes in the added and modified files of a list that NaiveChanges made for newDir, hardlinks once.
// A path that is gone meanwhile counts nothing.
func ChangesSize(newDir string, changes []Change) (int64, error) {
	dirs, err := openPathDirs(newDir)
	if err != nil {
		return 0, err
	}
	defer dirs.close()
	var size int64
	seen := make(map[inodeKey]struct{})
	for _, c := range changes {
		if c.Kind == ChangeDelete {
			continue
		}
		d, name, err := dirs.open(strings.TrimPrefix(c.Path, "/"))
		var st unix.Stat_t
		if err == nil {
			err = d.stat(name, &st)
		}
		if vanished(err) {
			continue
		}
		if err != nil {
			return 0, &fs.PathError{Op: "stat", Path: c.Path, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if st.Nlink > 1 {
			if _, counted := seen[inodeOf(&st)]; counted {
				continue
			}
			seen[inodeOf(&st)] = struct{}{}
		}
		size += st.Size
	}
	return size, nil
}

// pathDirs opens the directories of paths under one root, and keeps the last one open: lists of paths are sorted.
type pathDirs struct {
	root *dirHandle
	last *dirHandle
	path string // of last
}

func openPathDirs(root string) (*pathDirs, error) {
	d, err := openDirHandle(root)
	if err != nil {
		return nil, err
	}
	return &pathDirs{root: d}, nil
}

// open returns the directory of a relative path, and the path's last component. The directory is open until the next call.
// No symlink is followed.
func (p *pathDirs) open(path string) (*dirHandle, string, error) {
	dir := parentPath(path)
	name := strings.TrimPrefix(path[len(dir):], "/")
	if dir == "" {
		return p.root, name, nil
	}
	if p.last != nil && p.path == dir {
		return p.last, name, nil
	}
	at := p.root
	for rest := dir; rest != ""; {
		part, more, _ := strings.Cut(rest, "/")
		next, err := at.child(part)
		if at != p.root {
			at.close()
		}
		if err != nil {
			return nil, "", err
		}
		next.parent = nil // it is closed by itself, without going back up
		at, rest = next, more
	}
	if p.last != nil {
		p.last.close()
	}
	p.last, p.path = at, dir
	return at, name, nil
}

func (p *pathDirs) close() {
	if p.last != nil {
		p.last.close()
	}
	p.root.close()
}
