package integration_test

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// blocks counts the bytes of blocks that distinct regular-file inodes below a driver's home take: files of images in
// data, all else (objects without file data, records, indexes) in metadata.
func blocks(t *testing.T, home string) (data, metadata int64) {
	t.Helper()
	seen := map[uint64]bool{}
	// Files of layers first, so that an inode which a layer and the repository share counts as data.
	for _, pass := range []bool{true, false} {
		err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if isData(home, path) != pass {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
			if pass {
				data += st.Blocks * 512
			} else {
				metadata += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return data, metadata
}

// isData says whether a file belongs to an image: in overlay's layers, in our trees, or as a file object or lane.
func isData(home, path string) bool {
	relative, err := filepath.Rel(home, path)
	if err != nil {
		return false
	}
	if filepath.Base(home) == "overlay" {
		match, _ := filepath.Match("*/diff", firstOf(relative, 2))
		return match
	}
	for _, pattern := range []string{"layers/*/tree", "layers/*/diff"} {
		if match, _ := filepath.Match(pattern, firstOf(relative, 3)); match {
			return true
		}
	}
	return filepath.Ext(path) == ".file" || firstOf(relative, 4) == "repo/extensions/ostree-storage/lanes"
}

// firstOf is the first n names of a path.
func firstOf(path string, n int) string {
	for i := range len(path) {
		if path[i] == '/' {
			if n--; n == 0 {
				return path[:i]
			}
		}
	}
	return path
}

// One image alone never takes more data blocks than with overlay, and the whole store at most 8 % more.
func TestSpaceAlone(t *testing.T) {
	skopeo, set := programs.Find(t, "skopeo"), fixtures.Require(t)
	for _, image := range set.Images {
		t.Run(image.Name, func(t *testing.T) {
			var used, data, metadata [2]int64
			for n, driver := range []string{"ostree", "overlay"} {
				s := newStore(t, driver)
				before := freeAfterSync(t, s.Root)
				s.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), s.Reference(image.Ref()))
				used[n] = before - freeAfterSync(t, s.Root)
				data[n], metadata[n] = blocks(t, s.Home())
			}
			t.Logf("%s: data %d KiB, overlay %d KiB; metadata %d KiB, overlay %d KiB; df %d KiB, overlay %d KiB (%.3f)", image.Name,
				data[0]>>10, data[1]>>10, metadata[0]>>10, metadata[1]>>10, used[0]>>10, used[1]>>10, float64(used[0])/float64(used[1]))
			if data[0] > data[1] {
				t.Errorf("data takes %d KiB, with overlay %d KiB", data[0]>>10, data[1]>>10)
			}
			if limit := used[1]*108/100 + 256<<10; used[0] > limit {
				t.Errorf("the store takes %d KiB, with overlay %d KiB", used[0]>>10, used[1]>>10)
			}
		})
	}
}

// Images of one release share: the family takes at most 0.6 of what overlay needs.
func TestSpaceFamily(t *testing.T) {
	skopeo, set := programs.Find(t, "skopeo"), fixtures.Require(t)
	var used [2]int64
	for n, driver := range []string{"ostree", "overlay"} {
		s := newStore(t, driver)
		before := freeAfterSync(t, s.Root)
		for _, image := range set.Family("main") {
			s.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), s.Reference(image.Ref()))
			t.Logf("%s: %s brings it to %d KiB", driver, image.Name, (before-freeAfterSync(t, s.Root))>>10)
		}
		used[n] = before - freeAfterSync(t, s.Root)
		data, metadata := blocks(t, s.Home())
		t.Logf("%s: data %d KiB, metadata %d KiB, df %d KiB", driver, data>>10, metadata>>10, used[n]>>10)
	}
	if ratio := float64(used[0]) / float64(used[1]); ratio > 0.6 {
		t.Errorf("the family takes %.3f of what overlay needs, want at most 0.6", ratio)
	} else {
		t.Logf("the family takes %.3f of what overlay needs", ratio)
	}
}
