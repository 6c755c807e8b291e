package store

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// hold sees that the file's object is in the stage beside the tree: as a link to the one that the repository has, which
// whoever prunes meanwhile cannot take away, or made new. ready says that its content is there now, to be cloned from;
// it is false if another worker is just making it.
func (s *Stage) hold(it *item) (ready bool, err error) {
	s.mu.Lock()
	ready, ok := s.loose[it.sum]
	if !ok {
		s.loose[it.sum] = false
	}
	s.mu.Unlock()
	if ok {
		return ready, nil
	}
	n := object.Name{Checksum: it.sum, Type: object.TypeFile}
	linked, err := s.holdLink(n, s.repos(), it.fits)
	if err == nil && !linked {
		twin := *it
		if it.open >= 0 {
			twin.source, twin.open = it.open, -1
		}
		_, err = s.create(int(s.own.Fd()), n.String(), &twin, it.header.Xattrs, false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.loose, it.sum)
		return false, err
	}
	if !linked && s.o.NoSync {
		s.written = append(s.written, n)
	}
	s.loose[it.sum] = true
	s.held = append(s.held, n)
	return true, nil
}

// holdLink links an object into the stage if one of the repositories has it and it fits.
func (s *Stage) holdLink(n object.Name, from []*root, fits func(*unix.Stat_t) bool) (bool, error) {
	own := int(s.own.Fd())
	for _, r := range from {
		err := s.r.disk.link(int(r.objects.Fd()), n.LoosePath(), own, n.String())
		switch err {
		case nil:
		case unix.ENOENT, unix.EMLINK, unix.EXDEV, unix.EPERM:
			continue
		default:
			return false, placeError("hold", n.String(), err)
		}
		var st unix.Stat_t
		if err := lstat(own, n.String(), &st); err != nil {
			return false, placeError("hold", n.String(), err)
		}
		if fits(&st) {
			if r != s.r {
				s.syncAll()
			}
			return true, nil
		}
		if err := s.r.disk.remove(own, n.String()); err != nil {
			return false, placeError("hold", n.String(), err)
		}
	}
	return false, nil
}

// PutDirMeta stages a dirmeta; the store adds its label.
func (s *Stage) PutDirMeta(m *object.DirMeta) (object.Checksum, error) {
	if s.r.label != "" {
		labelled := *m
		labelled.Xattrs = withLabel(m.Xattrs, s.r.label)
		m = &labelled
	}
	b, err := m.AppendBinary(nil)
	return s.putMetadata(object.TypeDirMeta, b, err)
}

// PutDirTree stages a dirtree. All that it names must have been put before it.
func (s *Stage) PutDirTree(t *object.DirTree) (object.Checksum, error) {
	s.noteKeys(func(key func(object.Checksum)) {
		for _, f := range t.Files {
			key(f.Checksum)
		}
		for _, d := range t.Dirs {
			key(d.Tree)
			key(d.Meta)
		}
	})
	b, err := t.MarshalBinary()
	return s.putMetadata(object.TypeDirTree, b, err)
}

// PutCommit stages a commit. All that it names must have been put before it.
func (s *Stage) PutCommit(c *object.Commit) (object.Checksum, error) {
	b, err := c.AppendBinary(nil)
	sum, err := s.putMetadata(object.TypeCommit, b, err)
	if err != nil {
		return sum, err
	}
	return sum, s.putList(c, sum)
}

// putMetadata stages an object that is its own bytes.
func (s *Stage) putMetadata(t object.Type, b []byte, err error) (object.Checksum, error) {
	if err != nil {
		return object.Checksum{}, fmt.Errorf("encode %s: %w", t, err)
	}
	n := object.Name{Checksum: object.Sum(b), Type: t}
	s.mu.Lock()
	_, known := s.put[n]
	if !known {
		s.put[n] = struct{}{}
		s.metas = append(s.metas, n)
		s.watch(n.Checksum[0])
	}
	s.mu.Unlock()
	if known {
		return n.Checksum, nil
	}
	from := s.repos()
	if !s.there(n, len(b)) {
		from = from[1:]
	} else if s.keep(n, b) {
		return n.Checksum, nil
	}
	linked, err := s.holdLink(n, from, func(st *unix.Stat_t) bool { return st.Size == int64(len(b)) })
	if err == nil && !linked {
		err = s.writeMetadata(n, b, false)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.put, n)
		s.metas = slices.DeleteFunc(s.metas, func(m object.Name) bool { return m == n })
		return object.Checksum{}, err
	}
	return n.Checksum, nil
}

func (s *Stage) writeMetadata(n object.Name, b []byte, sync bool) error {
	fd, err := s.r.disk.create(int(s.own.Fd()), n.String(), 0o644)
	if err != nil {
		return placeError("create", n.String(), err)
	}
	err = writeAll(fd, b, 0)
	if err == nil && sync {
		err = s.r.disk.sync(fd)
	}
	if err = errors.Join(err, s.let(fd)); err != nil {
		s.r.disk.remove(int(s.own.Fd()), n.String())
		return &os.PathError{Op: "write", Path: n.String(), Err: err}
	}
	if s.o.NoSync {
		s.mu.Lock()
		s.written = append(s.written, n)
		s.mu.Unlock()
	}
	return nil
}
