package store

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// stagedRefFile is the ref's file in .objects before it is published.
const stagedRefFile = "ref"

// Publish makes the commit part of the repository under the given ref. files must call link for every file that was
// placed and is still in the tree, in as many goroutines as it likes, but for each dir in one at a time; dir and name are
// where it is now. It may be called more than once. link may replace the name by another inode of the same content, if
// another process was faster; directories keep their times.
//
// The order is what keeps the repository sound wherever it is cut off: first all bytes reach the disk; then, under the
// shared lock, the file objects get their names, then dirmeta and dirtree bottom-up, then the commit, then the ref. The
// lock is let go in between, so that a deletion gets its turn beside a layer of any size; the last hold begins with a look
// at whether all is still there. The caller finishes its own records and calls Repo.Sync before it reports success.
func (s *Stage) Publish(ctx context.Context, ref string, commit object.Checksum,
	files func(link func(dir int, name string, p Placed) error) error) error {
	s.published.Store(0)
	if err := checkRef(ref); err != nil {
		return err
	}
	top := object.Name{Checksum: commit, Type: object.TypeCommit}
	if _, ok := s.put[top]; !ok {
		return fmt.Errorf("publish %s: %w", ref, &MissingError{top})
	}
	if err := s.settle(commit); err != nil {
		return fmt.Errorf("publish %s: %w", ref, err)
	}
	if err := s.publish(ctx, ref, commit, files); err != nil {
		return fmt.Errorf("publish %s: %w", ref, err)
	}
	s.r.compact()
	return nil
}

// settle writes the ref's file and sees that all that was staged is on the disk before any of it gets its name: by a sync of all, or, of a
// small stage, by writing out what the journal will not have. What that has is there no later than a name that is made after it. With
// NoSync it notes what is not on the disk; the ref has a sync of its own, since a torn one would stop every deletion.
func (s *Stage) settle(commit object.Checksum) error {
	if err := s.early.wait(); err != nil {
		return err
	}
	ref := func(wait func(fd int) error) error {
		return s.r.writeRef(int(s.own.Fd()), stagedRefFile, commit, wait)
	}
	if s.o.NoSync {
		if err := ref(s.r.disk.sync); err != nil {
			return err
		}
		return s.r.noteUnsynced(s.written)
	}
	if done, err := s.writeFresh(); done || err != nil {
		if err == nil {
			err = ref(s.r.disk.writeOut)
		}
		return err
	}
	if err := ref(later); err != nil {
		return err
	}
	return s.r.syncfs(int(s.dir.Fd()))
}

// later does not wait.
func later(int) error { return nil }

// publish is the part of Publish that runs under the shared lock.
func (s *Stage) publish(ctx context.Context, ref string, commit object.Checksum, files eachPlaced) error {
	h, err := s.r.share(ctx)
	if err != nil {
		return err
	}
	defer h.end()
	if err := s.publishObjects(files, h.turn); err != nil {
		return err
	}
	if h.gaps > 0 {
		if err := s.confirm(h, files); err != nil {
			return err
		}
	}
	for _, n := range s.metas {
		if n.Type != object.TypeCommit {
			continue
		}
		if err := s.publishStaged(n); err != nil {
			return err
		}
	}
	if err := s.count(commit); err != nil {
		return err
	}
	return s.r.placeRef(int(s.own.Fd()), stagedRefFile, ref)
}

// eachPlaced calls link for every file of the tree, as Publish is told to by its caller.
type eachPlaced func(link func(dir int, name string, p Placed) error) error

// publishObjects publishes all but the commit, each object in a turn.
func (s *Stage) publishObjects(files eachPlaced, turn turn) error {
	touched := s.touched()
	publish := func(n object.Name) error {
		if n.Type == object.TypeCommit {
			return nil
		}
		if _, ok := s.kept.bytes[n]; ok {
			return nil
		}
		return turn(func() error { return s.publishStaged(n) })
	}
	if err := s.regain(&touched, turn); err != nil {
		return err
	}
	for _, n := range s.held {
		if err := publish(n); err != nil {
			return err
		}
	}
	if files != nil {
		if err := s.publishFiles(files, &touched, turn); err != nil {
			return err
		}
	}
	for _, n := range s.metas {
		if err := publish(n); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) publishFiles(files eachPlaced, touched *[256]bool, turn turn) error {
	return files(func(dir int, name string, p Placed) error {
		err := turn(func() error { return s.publishFile(dir, name, &p, touched) })
		if err != nil {
			return placeError("publish", name, err)
		}
		if p.Mode.shared() {
			s.published.Add(1)
		}
		return nil
	})
}

// touched tells for each objects/xx if something may have been deleted there since this stage first looked.
func (s *Stage) touched() (t [256]bool) {
	for i := range s.prefixes {
		p := &s.prefixes[i]
		var st unix.Stat_t
		err := lstat(int(s.r.objects.Fd()), hexByte(byte(i)), &st)
		t[i] = !p.settled || err != nil || st.Ctim != p.changed
	}
	return t
}

// publishStaged gives an object in .objects its place. One that is there already keeps it.
func (s *Stage) publishStaged(n object.Name) error {
	err := s.r.link(int(s.own.Fd()), n.String(), int(s.r.objects.Fd()), n.LoosePath())
	if err != nil && err != unix.EEXIST {
		return placeError("publish", n.String(), err)
	}
	return nil
}

// publishFile gives one inode of the tree its place among objects and lanes.
func (s *Stage) publishFile(dir int, name string, p *Placed, touched *[256]bool) error {
	switch {
	case p.Mode == Created || p.Mode == Adopted:
	case p.Mode == Linked && touched[p.Checksum[0]]:
	default:
		return nil
	}
	objects := int(s.r.objects.Fd())
	path := object.Name{Checksum: p.Checksum, Type: object.TypeFile}.LoosePath()
	err := s.r.link(dir, name, objects, path)
	switch {
	case err == unix.EMLINK && p.Mode != Created:
		return s.publishCopy(dir, name, p)
	case err == nil || err == unix.EEXIST && p.Mode == Linked:
		return nil
	case err != unix.EEXIST:
		return err
	}
	mine, err := s.inTree(dir, name)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := lstat(objects, path, &st); err != nil {
		return err
	}
	if st.Ino == mine.Ino {
		return nil
	}
	n := p.Lane
	if s.same(mine, &st, p) {
		if done, err := s.relink(dir, name, mine, spot{dir: objects, name: path, ino: st.Ino}, laneID{}); done || err != nil {
			return err
		}
		// The object is lane 0 of this time. Files are published in another order than they claimed their numbers in: one that
		// claimed 0 takes the number of the one that became the object.
		n = max(n, 1)
	}
	return s.publishLane(dir, name, p, mine, n)
}

func (s *Stage) inTree(dir int, name string) (*unix.Stat_t, error) {
	st := new(unix.Stat_t)
	return st, lstat(dir, name, st)
}

// same tells if an inode of the repository could stand where the staged one is.
func (s *Stage) same(mine, other *unix.Stat_t, p *Placed) bool {
	return mine.Mode == other.Mode && mine.Uid == other.Uid && mine.Gid == other.Gid && mine.Size == other.Size &&
		(s.o.SharedTimes || timeOf(other) == p.MTime) && !s.full(other)
}

// maxLanes bounds the search for a free lane number. Nothing but a tree with so many copies of one file gets there; the
// inodes beyond are then only this tree's.
const maxLanes = 1 << 20

// publishLane makes the inode a lane: under the number n if that is free or its inode full, else it gives way to the
// inode that has the number, else under the next.
func (s *Stage) publishLane(dir int, name string, p *Placed, mine *unix.Stat_t, n uint32) error {
	lanes := int(s.r.lanes.Fd())
	for ; n < maxLanes; n++ {
		id := laneID{sum: p.Checksum, time: s.laneTime(p.MTime), n: n}
		file := id.path()
		err := s.r.link(dir, name, lanes, file)
		if err == nil {
			return s.registered(mine.Ino, id)
		}
		if err == unix.EMLINK { // adopted, and full where it comes from
			return nil
		}
		if err != unix.EEXIST {
			return err
		}
		var st unix.Stat_t
		switch err := lstat(lanes, file, &st); {
		case err == unix.ENOENT:
			n-- // dropped just now: the number is free
		case err != nil:
			return err
		case st.Ino == mine.Ino:
			return s.registered(mine.Ino, id)
		case s.full(&st):
			return errors.Join(s.succeed(dir, name, file), s.registered(mine.Ino, id))
		case s.same(mine, &st, p):
			done, err := s.relink(dir, name, mine, spot{dir: lanes, name: file, ino: st.Ino, file: true}, id)
			if done || err != nil {
				return err
			}
		}
	}
	return nil
}

// registered notes that an inode of the tree has a lane file.
func (s *Stage) registered(ino uint64, id laneID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.set(ino, id.n)
	s.filed[ino] = id
	return nil
}

// succeed puts the inode in the place of a lane file whose inode is full.
func (s *Stage) succeed(dir int, name, file string) error {
	next := s.spareName()
	if err := s.r.disk.link(dir, name, int(s.own.Fd()), next); err != nil {
		return err
	}
	return s.r.disk.rename(int(s.own.Fd()), next, int(s.r.lanes.Fd()), file)
}

// relink lets the name in the tree lead to the inode at the spot instead of its own, unless that may not be used here, or
// the tree has more names of its own inode. It reports whether it did.
func (s *Stage) relink(dir int, name string, mine *unix.Stat_t, at spot, id laneID) (bool, error) {
	if mine.Nlink > 1 || !s.take(at.ino, id.n) {
		return false, nil
	}
	next := s.spareName()
	err := s.r.disk.link(at.dir, at.name, int(s.own.Fd()), next)
	if err == unix.EMLINK || err == unix.ENOENT {
		s.release(at.ino)
		return false, nil
	}
	if err == nil {
		err = keepTime(dir, func() error { return s.r.disk.rename(int(s.own.Fd()), next, dir, name) })
	}
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.delete(mine.Ino)
	if at.file {
		s.filed[at.ino] = id
	}
	return true, nil
}

// publishCopy brings back an object that was deleted since the tree linked one of its lanes, when that has no room for
// another link.
func (s *Stage) publishCopy(dir int, name string, p *Placed) error {
	var st unix.Stat_t
	fd, err := openInode(dir, name, &st)
	if err != nil {
		return err
	}
	it := &item{sum: p.Checksum, time: p.MTime, size: st.Size, open: -1, source: fd}
	h, err := headerOf(fd, dir, name, &st)
	if err == nil {
		it.header = *h
		_, err = s.hold(it)
	}
	if fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil {
		return err
	}
	if err := s.r.syncfs(int(s.dir.Fd())); err != nil {
		return err
	}
	return s.publishStaged(object.Name{Checksum: p.Checksum, Type: object.TypeFile})
}

// syncfs makes everything durable, also what was published without a sync before.
func (r *root) syncfs(fd int) error {
	notes, err := r.unsyncedNotes()
	if err != nil {
		return err
	}
	if err := r.disk.syncfs(fd); err != nil {
		return fmt.Errorf("sync the filesystem of %s: %w", r.path, err)
	}
	for _, name := range notes {
		if !ofThisBoot(name) {
			continue
		}
		if err := r.disk.remove(r.fd(), unsyncedDir+"/"+name); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove note of unsynced objects: %w", err)
		}
	}
	return nil
}
