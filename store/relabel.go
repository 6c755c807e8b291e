package store

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Repositories with other store labels have the same file under other checksums, and their inodes can never be ours. But a new file can
// share its blocks with theirs.

// A relabeller finds the objects of such repositories.
type relabeller struct {
	others []*root
	found  map[handleKey]*twin // by our checksum; nil if none of the others has the file
}

// A twin is the object of a file in a repository of another label.
type twin struct {
	r   *root
	sum object.Checksum
}

// relabelled are the repositories with another store label than r, where the filesystem can share blocks.
func relabelled(r *root, f Features, sources []*Repo) relabeller {
	l := relabeller{found: map[handleKey]*twin{}}
	for _, o := range sources {
		if f.Reflink && o.root.label != r.label {
			l.others = append(l.others, o.root)
		}
	}
	return l
}

// cloneTwin shares the blocks of the file with its object in a repository of another label, if one has it.
func (s *Stage) cloneTwin(fd int, it *item) bool {
	t := s.twinOf(it)
	if t == nil {
		return false
	}
	from, err := openRead(int(t.r.objects.Fd()), object.Name{Checksum: t.sum, Type: object.TypeFile}.LoosePath())
	return err == nil && s.cloneFrom(fd, from, it)
}

// twinOf returns the object of the file in a repository of another label, nil if there is none.
func (s *Stage) twinOf(it *item) *twin {
	if len(s.relabel.others) == 0 || !s.clones(it) {
		return nil
	}
	key := handleKey(it.sum[:16])
	s.mu.Lock()
	t, known := s.relabel.found[key]
	s.mu.Unlock()
	if known {
		return t
	}
	for _, o := range s.relabel.others {
		var st unix.Stat_t
		sum, err := it.sumAs(o.label)
		if err == nil && lstat(int(o.objects.Fd()), object.Name{Checksum: sum, Type: object.TypeFile}.LoosePath(), &st) == nil && it.fits(&st) {
			t = &twin{o, sum}
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.relabel.found) < maxHandles {
		s.relabel.found[key] = t
	}
	return t
}

// sumAs is the file's checksum in a repository with another store label.
func (it *item) sumAs(label string) (object.Checksum, error) {
	h := it.header
	h.Xattrs = withLabel(h.Xattrs, label)
	if it.body != nil {
		return h.Checksum(it.body)
	}
	sum, err := h.NewHash()
	if err != nil {
		return object.Checksum{}, err
	}
	fd := it.open
	if fd < 0 {
		fd = it.source
	}
	if fd < 0 {
		return object.Checksum{}, errNoContent
	}
	b := chunks.Get().(*[]byte)
	defer chunks.Put(b)
	for off := int64(0); off < it.size; {
		n, err := retry(func() (int, error) { return unix.Pread(fd, *b, off) })
		if err != nil {
			return object.Checksum{}, os.NewSyscallError("pread", err)
		}
		if n == 0 {
			return object.Checksum{}, io.ErrUnexpectedEOF
		}
		sum.Write((*b)[:n])
		off += int64(n)
	}
	return object.Checksum(sum.Sum(nil)), nil
}
