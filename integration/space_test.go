package integration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// A taken is what one image, or several, added to a store.
type taken struct {
	usage
	df int64
}

// minus is what was added between two states.
func (u usage) minus(before usage) usage {
	return usage{u.data - before.data, u.private - before.private, u.metadata - before.metadata}
}

// add applies the layers of images to a store and measures what each image adds.
func add(t *testing.T, cli programs.Program, s *programs.Store, images ...fixtures.Image) []taken {
	t.Helper()
	var all []taken
	var before usage
	if _, err := os.Stat(s.Home()); err == nil {
		before = used(t, s.Home())
	}
	free := freeAfterSync(t, s.Root)
	for _, image := range images {
		top := ""
		for _, l := range image.Layers {
			args := []string{"import-layer", "--file", l.Tar}
			if top != "" {
				args = append(args, top)
			}
			top = firstWord(s.Run(cli, args...))
		}
		s.Run(cli, "create-image", "--name", image.Ref(), top)
		after, now := used(t, s.Home()), freeAfterSync(t, s.Root)
		all = append(all, taken{after.minus(before), free - now})
		before, free = after, now
	}
	return all
}

// alone applies an image to an empty store and measures.
func alone(t *testing.T, cli programs.Program, image fixtures.Image, option string) (took taken) {
	t.Helper()
	t.Run(option, func(t *testing.T) { // whose end is the filesystem's
		s := newStore(t, "ostree")
		s.FsckOnly = true
		s.Options = []string{option}
		took = add(t, cli, s, image)[0]
	})
	return took
}

// spaceImages are the images of TestSpace. Those that show the same as others, of which each is hundreds of megabytes, have their turn
// under SOAK.
func spaceImages(t *testing.T, set *fixtures.Set) (family, others []fixtures.Image) {
	t.Helper()
	if os.Getenv("SOAK") == "" {
		return []fixtures.Image{set.Need(t, "python"), set.Need(t, "node"), set.Need(t, "web")},
			[]fixtures.Image{set.Need(t, "trixie"), set.Need(t, "busybox"), set.Need(t, "tiny")}
	}
	family = set.Family("main")
	for _, image := range set.Images {
		if image.Family != "main" {
			others = append(others, image)
		}
	}
	return family, others
}

// One image alone takes no more data blocks than with overlay, apart from the inodes of their own under etc and var, and not even
// those with links=shared; the whole store takes at most 8 % more. Images of one release share: the family takes at most 0.6 of
// what overlay needs. With overlay no two of these images have anything in common, so that one store serves for all. The first of the
// family is alone when it comes.
func TestSpace(t *testing.T) {
	t.Parallel()
	cli, set := programs.Find(t, "containers-storage"), fixtures.Require(t)
	family, others := spaceImages(t, set)
	theirs := map[string]taken{}
	t.Run("overlay", func(t *testing.T) { // its filesystem is gone before the others are made: all may be in memory
		s := newStore(t, "overlay")
		images := slices.Concat(family, others)
		for n, took := range add(t, cli, s, images...) {
			theirs[images[n].Name] = took
		}
	})
	if len(theirs) != len(family)+len(others) {
		t.Fatal("nothing to compare with: the subtest overlay did not run to its end")
	}
	for _, image := range others {
		t.Run("alone/"+image.Name, func(t *testing.T) {
			t.Parallel()
			spaceAlone(t, image, alone(t, cli, image, "links=exact-etc"), theirs[image.Name])
			if image.Size() < 10<<20 || os.Getenv("SOAK") != "" {
				spaceShared(t, cli, image, theirs[image.Name])
			}
		})
	}
	t.Run("shared/web", func(t *testing.T) {
		t.Parallel()
		spaceShared(t, cli, set.Need(t, "web"), theirs["web"])
	})
	t.Run("family", func(t *testing.T) {
		t.Parallel()
		s := newStore(t, "ostree")
		s.FsckOnly = true
		var ours, overlay int64
		for n, took := range add(t, cli, s, family...) {
			if n == 0 {
				spaceAlone(t, family[n], took, theirs[family[n].Name])
			}
			ours += took.df
			overlay += theirs[family[n].Name].df
			t.Logf("%s adds %d KiB, with overlay %d KiB", family[n].Name, took.df>>10, theirs[family[n].Name].df>>10)
		}
		u := used(t, s.Home())
		t.Logf("the family takes %.3f of what overlay needs; data %d KiB, metadata %d KiB", float64(ours)/float64(overlay), u.data>>10, u.metadata>>10)
		if ours*10 > overlay*6 {
			t.Errorf("the family takes %d KiB, more than 0.6 of the %d KiB that overlay needs", ours>>10, overlay>>10)
		}
	})
}

// spaceAlone compares one image in a store of its own with what it takes in overlay's.
func spaceAlone(t *testing.T, image fixtures.Image, ours, theirs taken) {
	t.Helper()
	t.Logf("%s: data %d KiB (of it private %d), overlay %d; metadata %d KiB, overlay %d; df %d KiB, overlay %d (%.3f)", image.Name,
		ours.data>>10, ours.private>>10, theirs.data>>10, ours.metadata>>10, theirs.metadata>>10, ours.df>>10, theirs.df>>10, float64(ours.df)/float64(theirs.df))
	if ours.data-ours.private > theirs.data {
		t.Errorf("data takes %d KiB besides private inodes, with overlay %d KiB", (ours.data-ours.private)>>10, theirs.data>>10)
	}
	if limit := theirs.df*108/100 + 256<<10; ours.df > limit {
		t.Errorf("the store takes %d KiB, with overlay %d KiB", ours.df>>10, theirs.df>>10)
	}
}

// spaceShared is spaceAlone with the option that has no inodes of their own.
func spaceShared(t *testing.T, cli programs.Program, image fixtures.Image, theirs taken) {
	t.Helper()
	shared := alone(t, cli, image, "links=shared")
	t.Logf("%s, links=shared: data %d KiB; df %d KiB (%.3f)", image.Name, shared.data>>10, shared.df>>10, float64(shared.df)/float64(theirs.df))
	if shared.data > theirs.data {
		t.Errorf("with links=shared data takes %d KiB, with overlay %d KiB", shared.data>>10, theirs.data>>10)
	}
}
