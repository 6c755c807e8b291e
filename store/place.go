package store

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Time is a file's modification time.
type Time struct {
	Sec  int64  // since 1970
	Nsec uint32 // below 1e9
}

// A File is what there is to know about a regular file or a symlink besides its content.
type File struct {
	Header object.FileHeader // without label: the store adds it
	MTime  Time
	// Private asks for an inode of its own, which is never linked to an object or another tree. Empty regular files
	// are always private.
	Private bool
	// Inode, if not nil, are the attributes that the tree's inode carries instead of Header.Xattrs. Implies Private.
	Inode []object.Xattr
}

// A Placement says how a file came into the tree.
type Placement uint8

// How a file came into the tree.
const (
	Linked  Placement = iota + 1 // an inode that the repository had
	Adopted                      // an inode that another repository had, new to this one
	Created                      // a new inode, which Publish links into the repository
	Single                       // an inode of its own
	Loose                        // not in the tree at all: an object only
)

// shared tells if the inode in the tree is, or becomes, one of the repository's.
func (m Placement) shared() bool { return m == Linked || m == Adopted || m == Created }

// Placed is the result of placing one file. The caller hands it back to Publish.
type Placed struct {
	Checksum object.Checksum
	MTime    Time // as the filesystem stores it
	Ino      uint64
	Lane     uint32
	Size     int64
	Mode     Placement
	Header   *object.FileHeader // only when the filesystem changed it (access control lists); without label
}

// An item is a file that is being placed.
type item struct {
	header object.FileHeader // what is hashed, label included
	inode  []object.Xattr    // what the tree's inode carries, label included
	time   Time              // as stored
	sum    object.Checksum
	size   int64
	single bool
	body   []byte // the content, if neither of the next two has it
	open   int    // the file, if it is already written under its name; else -1
	source int    // a file to copy the content from; else -1
	hint   *object.FileHeader
}

// PutFile places a small file or a symlink, whose body is in memory, as name in the directory dir. A nil error means
// that the tree has the file and the stage or the repository the object, not that this call wrote anything. The error
// matches fs.ErrExist if the name is taken, ErrOtherMount if dir is, and is an *AttributeError if the filesystem
// refuses an attribute.
func (s *Stage) PutFile(dir int, name string, f File, body []byte) (Placed, error) {
	it, err := s.item(&f, int64(len(body)))
	if err != nil {
		return Placed{}, err
	}
	it.body = body
	if it.sum, err = it.header.Checksum(body); err != nil {
		return Placed{}, fmt.Errorf("hash %q: %w", name, err)
	}
	return s.place(dir, name, it)
}

// PutObject places a file whose object is in this repository or in one of Sources. f.Header must be the object's.
func (s *Stage) PutObject(dir int, name string, f File, c object.Checksum) (Placed, error) {
	it, err := s.item(&f, -1)
	if err != nil {
		return Placed{}, err
	}
	it.sum, it.size = c, 0
	for _, r := range s.repos() {
		_, file, err := (&Objects{r}).OpenFile(c)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return Placed{}, err
		}
		if file != nil {
			defer file.Close()
			st, err := file.Stat()
			if err != nil {
				return Placed{}, err
			}
			it.source, it.size = int(file.Fd()), st.Size()
			it.single = it.single || it.size == 0
		}
		return s.place(dir, name, it)
	}
	return Placed{}, &MissingError{object.Name{Checksum: c, Type: object.TypeFile}}
}

// PutLoose stages a file object without a place in the tree (a whiteout, say).
func (s *Stage) PutLoose(f File, body []byte) (Placed, error) {
	it, err := s.item(&f, int64(len(body)))
	if err != nil {
		return Placed{}, err
	}
	it.body = body
	if it.sum, err = it.header.Checksum(body); err != nil {
		return Placed{}, fmt.Errorf("hash object: %w", err)
	}
	if _, err := s.hold(it); err != nil {
		return Placed{}, err
	}
	return s.placed(it, Loose, 0, 0), nil
}

// Forget says that the file was removed from the tree again.
func (s *Stage) Forget(p Placed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.delete(p.Ino)
	delete(s.filed, p.Ino)
}

// item prepares a file: its header as it will be hashed, its time as it will be stored.
func (s *Stage) item(f *File, size int64) (*item, error) {
	it := &item{header: f.Header, size: size, open: -1, source: -1}
	regular := f.Header.Mode&unix.S_IFMT == unix.S_IFREG
	if !regular && f.Header.Mode != unix.S_IFLNK|0o777 {
		return nil, fmt.Errorf("place a file of mode %o: %w", f.Header.Mode, unix.EINVAL)
	}
	it.single = f.Private || f.Inode != nil || regular && size == 0
	mode, xattrs, err := s.Settle(f.Header.Mode, f.Header.Xattrs)
	if err != nil {
		return nil, err
	}
	if mode != f.Header.Mode || !object.EqualXattrs(xattrs, f.Header.Xattrs) {
		it.header.Mode, it.header.Xattrs = mode, xattrs
		h := it.header
		it.hint = &h
	}
	it.inode = it.header.Xattrs
	if f.Inode != nil {
		it.inode = f.Inode
	}
	if s.r.label != "" {
		it.header.Xattrs = withLabel(it.header.Xattrs, s.r.label)
		it.inode = withLabel(it.inode, s.r.label)
	}
	it.time, err = s.r.stored(f.MTime)
	return it, err
}

// withLabel returns attributes with a label in place of any other; "" is none.
func withLabel(xattrs []object.Xattr, label string) []object.Xattr {
	out := make([]object.Xattr, 0, len(xattrs)+1)
	for _, x := range xattrs {
		if x.Name != labelName {
			out = append(out, x)
		}
	}
	if label != "" {
		out = append(out, object.Xattr{Name: labelName, Value: append([]byte(label), 0)})
	}
	object.SortXattrs(out)
	return out
}

// repos are the repositories that may have an object, ours first.
func (s *Stage) repos() []*root {
	all := []*root{s.r}
	for _, o := range s.o.Sources {
		all = append(all, o.root)
	}
	return all
}

func (s *Stage) placed(it *item, m Placement, ino uint64, n uint32) Placed {
	return Placed{
		Checksum: it.sum, MTime: it.time, Ino: ino, Lane: n, Size: it.size, Mode: m, Header: it.hint,
	}
}

// place puts the file into the tree: as a link to an inode of the repository that it may share, else as a new inode.
func (s *Stage) place(dir int, name string, it *item) (Placed, error) {
	if err := checkName(name); err != nil {
		return Placed{}, err
	}
	if it.single {
		return s.placeSingle(dir, name, it)
	}
	for {
		n := s.claim(it)
		at, err := s.look(it, n)
		if err != nil {
			return Placed{}, err
		}
		if at.ino == 0 {
			joined, mine := s.join(it, n)
			if joined.ino == 0 {
				p, err := s.placeNew(dir, name, it, n, at.clone)
				mine.land(dir, name, err)
				return p, err
			}
			s.syncAll()
			at = joined
		}
		if !s.take(at.ino, n) {
			at.close()
			continue
		}
		err = s.linkIn(dir, name, it, at)
		at.close()
		switch err {
		case nil:
			if at.file {
				s.mu.Lock()
				s.filed[at.ino] = laneID{sum: it.sum, time: s.laneTime(it.time), n: n}
				s.mu.Unlock()
			}
			mode := Linked
			if at.foreign {
				s.syncAll()
				mode = Adopted
			}
			return s.placed(it, mode, at.ino, n), nil
		case unix.ENOENT, unix.EMLINK: // pruned meanwhile, or full: Publish gives the lane a new inode
			s.release(at.ino)
			return s.placeNew(dir, name, it, n, false)
		}
		s.release(at.ino)
		return Placed{}, placeError("link", name, err)
	}
}

// checkName refuses what is not the name of one entry: nothing here may walk a path that an image controls.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return placeError("place", name, unix.EINVAL)
	}
	return nil
}

// linkIn links an inode into the tree, in place of what was written under the name before the content was known.
func (s *Stage) linkIn(dir int, name string, it *item, at spot) error {
	if it.open < 0 {
		return s.r.disk.link(at.dir, at.name, dir, name)
	}
	next := s.spareName()
	if err := s.r.disk.link(at.dir, at.name, int(s.own.Fd()), next); err != nil {
		return err
	}
	return s.r.disk.rename(int(s.own.Fd()), next, dir, name)
}

func (s *Stage) placeNew(dir int, name string, it *item, n uint32, clone bool) (Placed, error) {
	ino, err := s.create(dir, name, it, it.inode, clone || it.open >= 0 && s.twinOf(it) != nil)
	if err != nil {
		return Placed{}, err
	}
	s.mu.Lock()
	s.used.set(ino, n)
	if s.o.NoSync {
		s.written = append(s.written, object.Name{Checksum: it.sum, Type: object.TypeFile})
	}
	s.mu.Unlock()
	return s.placed(it, Created, ino, n), nil
}

// placeSingle makes an inode of the file's own, and sees that the object is there as well.
func (s *Stage) placeSingle(dir int, name string, it *item) (Placed, error) {
	ready, err := s.hold(it)
	if err != nil {
		return Placed{}, err
	}
	ino, err := s.create(dir, name, it, it.inode, ready)
	if err != nil {
		return Placed{}, err
	}
	return s.placed(it, Single, ino, 0), nil
}

// placeError names what could not be placed.
func placeError(verb, name string, err error) error {
	if err == unix.EXDEV {
		err = fmt.Errorf("%w (%w)", ErrOtherMount, err)
	}
	if e, ok := err.(unix.Errno); ok {
		return &os.PathError{Op: verb, Path: name, Err: e}
	}
	return fmt.Errorf("%s %q: %w", verb, name, err)
}
