package differential_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/store"
)

// TestUnusedLanesGo: lanes stay as long as a root uses them and go with the last
// one, in blocks of the filesystem: where there are reflinks they take none, and
// where there are none, what they took comes back.
func TestUnusedLanesGo(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay has no lanes")
	}
	const files, size = 64, 256 << 10
	content := func(sec int64, dirs ...string) (l differential.Layer) {
		for _, dir := range dirs {
			l = append(l, directory(dir+"/"))
			for i := range files {
				e := regular(fmt.Sprintf("%s/%d", dir, i), strings.Repeat(fmt.Sprintf("%08d", i), size/8))
				e.MTime = time.Unix(sec, 0)
				l = append(l, e)
			}
		}
		return l
	}
	each(t, func(t *testing.T, dir string) {
		p := opened(t, dir)
		d := p.Ours.Driver
		apply(t, p.Ours, "base", "", content(1, "usr"))
		before := takenBy(t, dir)
		steps := []struct {
			name   string
			do     func()
			copies int64 // how often the files are there again
		}{
			{"files with another time", func() { apply(t, p.Ours, "time", "", content(2, "usr")) }, 1},
			{"and the same in a second root", func() { apply(t, p.Ours, "time2", "", content(2, "usr")) }, 1},
			{"equal files in one root, above others", func() { apply(t, p.Ours, "twice", "base", content(1, "opt", "srv")) }, 3},
			{"without the first of two roots", func() { remove(t, d.Remove("time")) }, 3},
			{"without the second", func() { remove(t, d.Remove("time2")) }, 2},
			{"without the layer above", func() { remove(t, d.Remove("twice")) }, 0},
		}
		reflink := filepath.Base(dir) != "ext4"
		for _, s := range steps {
			s.do()
			u := laneUse(t, p.Ours.Home())
			want := s.copies * files * size
			taken := takenBy(t, dir) - before
			t.Logf("%s: %d lanes, %d bytes, %d unused; the filesystem gives %d more", s.name, u.Lanes, u.Bytes, u.Unused, taken)
			if u.Lanes != s.copies*files || u.Unused != 0 {
				t.Errorf("%s: %d lanes, %d of them unused; want %d, all used", s.name, u.Lanes, u.Unused, s.copies*files)
			}
			if reflink {
				want = 0
			}
			if u.Bytes != want {
				t.Errorf("%s: lanes take %d bytes, want %d", s.name, u.Bytes, want)
			}
			if slack := int64(4 << 20); taken < want-slack || taken > want+slack {
				t.Errorf("%s: the filesystem has %d bytes less than before, want about %d", s.name, taken, want)
			}
		}
		remove(t, d.Remove("base"))
	})
}

func remove(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func laneUse(t *testing.T, home string) store.LaneUse {
	t.Helper()
	r, err := store.Open(filepath.Join(home, "repo"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	u, err := r.LaneUse(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// takenBy is what df says of a filesystem, when all is on disk.
func takenBy(t *testing.T, dir string) int64 {
	t.Helper()
	syncAll(t, dir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}
