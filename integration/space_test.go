package integration_test

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// A usage is what the distinct regular-file inodes below a driver's home take, in bytes of blocks.
type usage struct {
	data     int64 // contents of images
	private  int64 // the part of data that is in inodes of a layer alone, beside an object with the same content
	metadata int64 // all else: objects that are no files, records, indexes
}

// used measures an overlay or ostree home.
func used(t *testing.T, home string) usage {
	t.Helper()
	var u usage
	seen := map[uint64]bool{}
	objects := map[uint64]bool{} // inodes of file objects and lanes
	walk := func(dir string, each func(path string, st *syscall.Stat_t)) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				each(path, info.Sys().(*syscall.Stat_t))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func(st *syscall.Stat_t, sum *int64) {
		if !seen[st.Ino] {
			seen[st.Ino] = true
			*sum += st.Blocks * 512
		}
	}
	walk(home, func(path string, st *syscall.Stat_t) {
		if isObject(home, path) {
			objects[st.Ino] = true
			count(st, &u.data)
		}
	})
	walk(home, func(path string, st *syscall.Stat_t) {
		if !isContent(home, path) {
			return
		}
		if len(objects) > 0 && !objects[st.Ino] {
			count(st, &u.private)
		}
		count(st, &u.data)
	})
	walk(home, func(path string, st *syscall.Stat_t) { count(st, &u.metadata) })
	u.data += u.private
	return u
}

// isObject says whether a path is a file object or a lane.
func isObject(home, path string) bool {
	relative, err := filepath.Rel(home, path)
	return err == nil && (filepath.Ext(path) == ".file" || firstOf(relative, 4) == "repo/extensions/ostree-storage/lanes")
}

// isContent says whether a path is a file of a layer.
func isContent(home, path string) bool {
	relative, err := filepath.Rel(home, path)
	if err != nil {
		return false
	}
	for depth, patterns := range map[int][]string{2: {"*/diff"}, 3: {"layers/*/tree", "layers/*/diff"}} {
		for _, p := range patterns {
			if match, _ := filepath.Match(p, firstOf(relative, depth)); match {
				return true
			}
		}
	}
	return false
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

// One image alone takes no more data blocks than with overlay, apart from the inodes of their own under etc and var,
// and not even those with links=shared. The whole store takes at most 8 % more.
func TestSpaceAlone(t *testing.T) {
	t.Parallel()
	skopeo, set := programs.Find(t, "skopeo"), fixtures.Require(t)
	for _, image := range set.Images {
		t.Run(image.Name, func(t *testing.T) {
			theirs, theirDF := alone(t, skopeo, image, "overlay", "")
			ours, ourDF := alone(t, skopeo, image, "ostree", "")
			t.Logf("%s: data %d KiB (of it private %d), overlay %d; metadata %d KiB, overlay %d; df %d KiB, overlay %d (%.3f)", image.Name,
				ours.data>>10, ours.private>>10, theirs.data>>10, ours.metadata>>10, theirs.metadata>>10, ourDF>>10, theirDF>>10, float64(ourDF)/float64(theirDF))
			if ours.data-ours.private > theirs.data {
				t.Errorf("data takes %d KiB besides private inodes, with overlay %d KiB", (ours.data-ours.private)>>10, theirs.data>>10)
			}
			if limit := theirDF*108/100 + 256<<10; ourDF > limit {
				t.Errorf("the store takes %d KiB, with overlay %d KiB", ourDF>>10, theirDF>>10)
			}
			if image.Family == "main" && image.Name != "web" {
				return // one of them is enough for the option
			}
			shared, sharedDF := alone(t, skopeo, image, "ostree", "links=shared")
			t.Logf("%s, links=shared: data %d KiB; df %d KiB (%.3f)", image.Name, shared.data>>10, sharedDF>>10, float64(sharedDF)/float64(theirDF))
			if shared.data > theirs.data {
				t.Errorf("with links=shared data takes %d KiB, with overlay %d KiB", shared.data>>10, theirs.data>>10)
			}
		})
	}
}

// alone copies an image into an empty store and measures.
func alone(t *testing.T, skopeo programs.Program, image fixtures.Image, driver, option string) (usage, int64) {
	t.Helper()
	s := newStore(t, driver)
	s.FsckOnly = true
	if option != "" {
		s.Options = []string{option}
	}
	before := freeAfterSync(t, s.Root)
	s.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), s.Reference(image.Ref()))
	df := before - freeAfterSync(t, s.Root)
	return used(t, s.Home()), df
}

// Images of one release share: the family takes at most 0.6 of what overlay needs.
func TestSpaceFamily(t *testing.T) {
	t.Parallel()
	skopeo, set := programs.Find(t, "skopeo"), fixtures.Require(t)
	var total [2]int64
	for n, driver := range []string{"ostree", "overlay"} {
		s := newStore(t, driver)
		s.FsckOnly = true
		before := freeAfterSync(t, s.Root)
		for _, image := range set.Family("main") {
			s.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), s.Reference(image.Ref()))
			t.Logf("%s: %s brings it to %d KiB", driver, image.Name, (before-freeAfterSync(t, s.Root))>>10)
		}
		total[n] = before - freeAfterSync(t, s.Root)
		u := used(t, s.Home())
		t.Logf("%s: data %d KiB, metadata %d KiB, df %d KiB", driver, u.data>>10, u.metadata>>10, total[n]>>10)
	}
	ratio := float64(total[0]) / float64(total[1])
	t.Logf("the family takes %.3f of what overlay needs", ratio)
	if ratio > 0.6 {
		t.Errorf("the family takes %.3f of what overlay needs, want at most 0.6", ratio)
	}
}
