package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// An Adoption brings one commit of another repository, with all that it reaches, into a stage. That repository is one of the stage's
// Sources.
type Adoption struct {
	s    *Stage
	from *Repo
}

// Adopt begins an adoption.
func Adopt(s *Stage, from *Repo) *Adoption { return &Adoption{s, from} }

// Link places name in the directory dir as a further link to an inode of another repository's tree, the file name in the directory
// from. That must be a file of object c that its tree shares with its repository. It reports false, and does nothing, if the inode
// cannot be used here: an ancestor's tree has it, this one has it, it is full or on another mount. PutObject then finds or makes another.
func (a *Adoption) Link(from, dir int, name string, c object.Checksum) (Placed, bool, error) {
	s := a.s
	if err := checkName(name); err != nil {
		return Placed{}, false, err
	}
	var st unix.Stat_t
	if err := lstat(from, name, &st); err != nil {
		return Placed{}, false, placeError("look at", name, err)
	}
	if s.full(&st) {
		return Placed{}, false, nil
	}
	it := &item{sum: c, time: timeOf(&st), size: st.Size}
	n := s.claim(it)
	if !s.take(st.Ino, n) {
		return Placed{}, false, nil
	}
	err := s.r.disk.link(from, name, dir, name)
	if err == nil {
		return s.placed(it, Adopted, st.Ino, n), true, nil
	}
	s.release(st.Ino)
	switch err {
	case unix.EXDEV, unix.EMLINK, unix.EPERM, unix.ENOENT:
		return Placed{}, false, nil
	}
	return Placed{}, false, placeError("link", name, err)
}

// Hold stages a file object of either repository without a place in the tree, linked or copied.
func (a *Adoption) Hold(c object.Checksum) error {
	s := a.s
	s.mu.Lock()
	_, known := s.loose[c]
	s.mu.Unlock()
	if known {
		return nil
	}
	for _, r := range s.repos() {
		h, file, err := (&Objects{r}).OpenFile(c)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return err
		}
		it := &item{header: *h, inode: h.Xattrs, sum: c, open: -1, source: -1}
		if file != nil {
			defer file.Close()
			var st unix.Stat_t
			if err := unix.Fstat(int(file.Fd()), &st); err != nil {
				return fmt.Errorf("look at object %s: %w", c, err)
			}
			it.source, it.size, it.time = int(file.Fd()), st.Size, timeOf(&st)
		}
		_, err = s.hold(it)
		return err
	}
	return &MissingError{object.Name{Checksum: c, Type: object.TypeFile}}
}

// Tree stages all the metadata objects that a commit of the other repository reaches, the commit included, as they are: each is read,
// compared with its checksum and linked where that can be. It calls file for every name that is a file object, before the dirtree that
// has it; file must see that the object is put.
func (a *Adoption) Tree(commit object.Checksum, file func(object.Checksum) error) error {
	c, err := a.from.ReadCommit(commit)
	if err != nil {
		return err
	}
	t := &treeCopy{s: a.s, from: a.from, file: file, done: map[object.Name]struct{}{}}
	if err := errors.Join(t.tree(c.Tree), t.meta(c.Meta)); err != nil {
		return err
	}
	got, err := a.s.PutCommit(c)
	return sameSum(object.Name{Checksum: commit, Type: object.TypeCommit}, got, err)
}

// A treeCopy is what Tree has put so far.
type treeCopy struct {
	s    *Stage
	from *Repo
	file func(object.Checksum) error
	done map[object.Name]struct{}
}

// again reports whether an object was put before, and notes it.
func (t *treeCopy) again(n object.Name) bool {
	_, ok := t.done[n]
	t.done[n] = struct{}{}
	return ok
}

func (t *treeCopy) meta(c object.Checksum) error {
	n := object.Name{Checksum: c, Type: object.TypeDirMeta}
	if t.again(n) {
		return nil
	}
	m, err := t.from.ReadDirMeta(c)
	if err != nil {
		return err
	}
	got, err := t.s.PutDirMeta(m)
	return sameSum(n, got, err)
}

func (t *treeCopy) tree(c object.Checksum) error {
	n := object.Name{Checksum: c, Type: object.TypeDirTree}
	if t.again(n) {
		return nil
	}
	tree, err := t.from.ReadDirTree(c)
	if err != nil {
		return err
	}
	for _, f := range tree.Files {
		if t.again(object.Name{Checksum: f.Checksum, Type: object.TypeFile}) {
			continue
		}
		if err := t.file(f.Checksum); err != nil {
			return err
		}
	}
	for _, d := range tree.Dirs {
		if err := errors.Join(t.tree(d.Tree), t.meta(d.Meta)); err != nil {
			return err
		}
	}
	got, err := t.s.PutDirTree(tree)
	return sameSum(n, got, err)
}

// sameSum says that an object came out as another one, which a store label of another kind would do.
func sameSum(n object.Name, got object.Checksum, err error) error {
	if err == nil && got != n.Checksum {
		return fmt.Errorf("object %s would be %s here: the repositories have other store labels: %w", n, got, ErrUnsupported)
	}
	return err
}
