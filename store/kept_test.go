package store

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A keptDisk counts what a stage links and creates of dirtrees, and does something once, when a stage is about to publish.
type keptDisk struct {
	disk
	before        func()
	linked, wrote int
}

func (d *keptDisk) writeOut(fd int) error {
	if f := d.before; f != nil {
		d.before = nil
		f()
	}
	return d.disk.writeOut(fd)
}

func (d *keptDisk) link(fromDir int, from string, toDir int, to string) error {
	if strings.HasSuffix(from, ".dirtree") {
		d.linked++
	}
	return d.disk.link(fromDir, from, toDir, to)
}

func (d *keptDisk) create(dir int, name string, perm uint32) (int, error) {
	if strings.HasSuffix(name, ".dirtree") {
		d.wrote++
	}
	return d.disk.create(dir, name, perm)
}

// TestKeptMetadata: a dirtree that the repository has is neither linked nor written, unless it goes while the stage is filled.
func TestKeptMetadata(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	files := pool(20)
	must(t, w.apply("one", StageOptions{}, files...))
	again := &keptDisk{disk: kernel{}}
	w.on(again)
	must(t, w.apply("two", StageOptions{}, files...))
	if again.linked+again.wrote != 0 {
		t.Errorf("a known dirtree was linked %d times and written %d times", again.linked, again.wrote)
	}
	w.check("beside an equal layer")
	must(t, w.reap("two"))

	lost := &keptDisk{disk: kernel{}}
	lost.before = func() { must(t, w.reap("one")) }
	w.on(lost)
	must(t, w.apply("three", StageOptions{}, files...))
	if lost.wrote != 1 {
		t.Errorf("the dirtree went, and was written %d times", lost.wrote)
	}
	w.check("after its twin went meanwhile")
	must(t, w.reap("three"))
	w.exact(t, nil)
}

// TestKeptMetadataIsBounded: with no room left, known metadata is linked into the stage.
func TestKeptMetadataIsBounded(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	must(t, w.apply("one", StageOptions{}, pool(3)...))
	s, err := w.repo.NewStage(StageOptions{})
	must(t, err)
	defer s.Close()
	s.kept.size = maxKept
	n, err := s.PutDirMeta(&object.DirMeta{Mode: unix.S_IFDIR | 0o755})
	must(t, err)
	var st unix.Stat_t
	if err := lstat(int(s.own.Fd()), n.String()+".dirmeta", &st); err != nil {
		t.Errorf("look for what should be linked: %v", err)
	}
	if st.Nlink != 2 {
		t.Errorf("the dirmeta has %d names", st.Nlink)
	}
}
