package store

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A handleKey is the first half of a checksum: enough that nobody can make two files with the same.
type handleKey [16]byte

// maxHandles bounds the memory for files of this stage that later ones may be cloned from; each takes about 100 bytes.
const maxHandles = 1 << 18

// cloneMin is the size in bytes from which a clone is better than a copy: btrfs keeps smaller files in its tree.
func (r *root) cloneMin(f Features) (int64, error) {
	if !f.Reflink {
		return 0, nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.fd(), &fs); err != nil {
		return 0, fmt.Errorf("stat the filesystem of %s: %w", r.path, err)
	}
	if fs.Type == unix.BTRFS_SUPER_MAGIC {
		return 2049, nil
	}
	return 1, nil
}

// clones tells if the file's blocks would be shared where they can be.
func (s *Stage) clones(it *item) bool {
	return s.features.Reflink && it.size >= s.cloneMin && it.header.Mode&unix.S_IFMT == unix.S_IFREG
}

// cloneInto shares the blocks of the same content in a new file: of the object in a repository with another label, of the
// file to copy from, of the object if it is there, or of a file that this stage has written before.
func (s *Stage) cloneInto(fd int, it *item, known bool) bool {
	if s.cloneTwin(fd, it) {
		return true
	}
	if it.source >= 0 && unix.IoctlFileClone(fd, it.source) == nil {
		return true
	}
	if known {
		n := object.Name{Checksum: it.sum, Type: object.TypeFile}
		for _, at := range []spot{{dir: int(s.r.objects.Fd()), name: n.LoosePath()}, {dir: int(s.own.Fd()), name: n.String()}} {
			from, err := openRead(at.dir, at.name)
			if err == nil && s.cloneFrom(fd, from, it) {
				return true
			}
		}
	}
	s.mu.Lock()
	h, ok := s.handles[handleKey(it.sum[:16])]
	s.mu.Unlock()
	if !ok {
		return false
	}
	from, err := unix.OpenByHandleAt(int(s.dir.Fd()), h, unix.O_RDONLY|unix.O_CLOEXEC)
	return err == nil && s.cloneFrom(fd, from, it)
}

// remembers tells if this stage has written the same content before.
func (s *Stage) remembers(it *item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.handles[handleKey(it.sum[:16])]
	return ok
}

// cloneFrom clones an open file and closes it.
func (s *Stage) cloneFrom(fd, from int, it *item) bool {
	defer unix.Close(from)
	var st unix.Stat_t
	if unix.Fstat(from, &st) != nil || st.Size != it.size {
		return false
	}
	return unix.IoctlFileClone(fd, from) == nil
}

// remember notes a file that was just written, for the next one with the same content. It is found again by its handle,
// whatever names it has by then; where the kernel does not allow that, it is not found and the content is written again.
func (s *Stage) remember(fd int, it *item) {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.handles) < maxHandles {
		s.handles[handleKey(it.sum[:16])] = h
	}
}
