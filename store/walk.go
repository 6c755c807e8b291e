package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// An entry is a name in a directory. dir is open during the visit only.
type entry struct {
	dir  int
	name string
	kind os.FileMode // type bits
}

// maxOpen is how many directories of one path a walk keeps open. Images may have trees that are deeper than a process has
// descriptors; the walk then comes back through "..", and checks where it got.
const maxOpen = 64

// walkTree visits every name below the open directory fd that is no directory. Symlinks are not followed. The tree must
// not be moved about meanwhile.
func walkTree(fd int, visit func(e entry) error) error {
	return walkLevel(fd, 0, visit)
}

func walkLevel(fd, depth int, visit func(e entry) error) error {
	entries, err := readDir(fd)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			if err := visit(entry{fd, e.Name(), e.Type()}); err != nil {
				return err
			}
			continue
		}
		sub, err := openDir(fd, e.Name())
		if err != nil {
			return &os.PathError{Op: "open", Path: e.Name(), Err: err}
		}
		if depth < maxOpen {
			err = walkLevel(sub, depth+1, visit)
			unix.Close(sub)
		} else {
			err = walkThrough(fd, sub, depth, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walkThrough walks a subdirectory deep down: the parent's descriptor leads there meanwhile, and then back up. It closes
// sub.
func walkThrough(fd, sub, depth int, visit func(e entry) error) error {
	var before, after unix.Stat_t
	err := unix.Fstat(fd, &before)
	if err == nil {
		err = unix.Dup3(sub, fd, unix.O_CLOEXEC)
	}
	unix.Close(sub)
	if err != nil {
		return os.NewSyscallError("dup3", err)
	}
	if err := walkLevel(fd, depth+1, visit); err != nil {
		return err
	}
	up, err := openDir(fd, "..")
	if err != nil {
		return os.NewSyscallError("open ..", err)
	}
	defer unix.Close(up)
	if err := unix.Fstat(up, &after); err != nil {
		return os.NewSyscallError("stat ..", err)
	}
	if before.Ino != after.Ino {
		return &os.PathError{Op: "walk", Path: "..", Err: unix.ESTALE}
	}
	return os.NewSyscallError("dup3", unix.Dup3(up, fd, unix.O_CLOEXEC))
}

// readDir lists an open directory from its beginning.
func readDir(fd int) ([]os.DirEntry, error) {
	dup, err := openDir(fd, ".")
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	// Under this name a filesystem that does not list types can be asked for them.
	d := os.NewFile(uintptr(dup), procPath(dup, "."))
	defer d.Close()
	return d.ReadDir(-1)
}
