package store

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// maxKept is how much memory a stage takes for metadata, keptCost what each object costs besides its bytes. What is more gets links of its
// own in the stage, as files do.
const (
	maxKept  = 4 << 20
	keptCost = 100
)

// A keptMetadata is the metadata of a stage that the repository has already. A deletion may take it away before a ref reaches it; then it is
// written again from here. A link of its own for each in the stage, and the removal of that, would cost more.
type keptMetadata struct {
	mu    sync.Mutex
	bytes map[object.Name][]byte
	size  int
}

// keep remembers a dirtree or dirmeta that is in the repository, and returns false if there is no room.
func (s *Stage) keep(n object.Name, b []byte) bool {
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	cost := len(b) + keptCost
	if n.Type == object.TypeCommit || s.kept.size+cost > maxKept {
		return false
	}
	if s.kept.bytes == nil {
		s.kept.bytes = make(map[object.Name][]byte)
	}
	s.kept.bytes[n] = b
	s.kept.size += cost
	return true
}

// there tells if the repository has a metadata object of that size.
func (s *Stage) there(n object.Name, size int) bool {
	var st unix.Stat_t
	err := lstat(int(s.r.objects.Fd()), n.LoosePath(), &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == int64(size)
}

// regain sees that what is kept is still in the repository, or stages it now and durably. It comes before any file is published, since
// what a crash leaves of a stage is known from its metadata.
func (s *Stage) regain(touched *[256]bool, turn turn) error {
	for n, b := range s.kept.bytes {
		if !touched[n.Checksum[0]] {
			continue
		}
		err := turn(func() error {
			if s.there(n, len(b)) {
				return nil
			}
			delete(s.kept.bytes, n)
			return s.writeMetadata(n, b, true)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
