package differential_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	graphdriver "go.podman.io/storage/drivers"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestSharedOptions: with mtime=shared all but the times of files is as on
// overlay, with links=shared all but the link counts, on each filesystem.
func TestSharedOptions(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay has no such options")
	}
	length := time.Second / 2
	if soak, err := time.ParseDuration(os.Getenv("SOAK")); err == nil {
		length = soak / 3
	}
	each(t, func(t *testing.T, dir string) {
		for i, options := range [][]string{{"mtime=shared"}, {"links=shared"}, {"mtime=shared", "links=shared"}} {
			p := opened(t, filepath.Join(dir, fmt.Sprint(i)), options...)
			p.SharedTimes, p.SharedLinks = i != 1, i != 0
			end, n := time.Now().Add(length), uint64(0)
			for ; (n < 5 || time.Now().Before(end)) && !t.Failed(); n++ {
				runSeed(t, p, 5000+n)
			}
			t.Logf("%q: %d chains", options, n)
		}
	})
}

// TestSharedTimesDiffer shows that the option does something, and that the
// harness is not blind.
func TestSharedTimesDiffer(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay has no such option")
	}
	t.Parallel()
	p := opened(t, testfs.Mount(t, "ext4"), "mtime=shared")
	other := regular("a", "equal")
	other.MTime = time.Unix(5, 0)
	var diffs []differential.Difference
	for _, e := range []differential.Entry{regular("a", "equal"), other} {
		var err error
		if diffs, err = p.Run(1, differential.Chain{{e}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(diffs) == 0 {
		t.Error("with mtime=shared, files of two times have their own: the option does nothing, or the harness is blind")
	}
}

// TestChangesWithSharedTimes: files of one size that were stored with one time by
// another image show that time, whatever their own. What changed is what overlay
// says nevertheless: between layers, over several, and in containers.
func TestChangesWithSharedTimes(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay has no such option")
	}
	t.Parallel()
	timed := func(name, body string, sec int64) differential.Entry {
		e := regular(name, body)
		e.MTime = time.Unix(sec, 0)
		return e
	}
	all := func(sec int64, bodies ...string) (l differential.Layer) {
		l = append(l, directory("./"), directory("d/"))
		for i, body := range bodies {
			if body != "" {
				l = append(l, timed(fmt.Sprintf("d/f%d", i), body, sec))
			}
		}
		return l
	}
	layers := []struct {
		id, parent string
		content    differential.Layer
	}{
		{"first", "", all(100, "content A", "content B", "content C", "content D")},
		{"base", "", all(200, "content A", "content B", "content C", "content D")},
		{"middle", "base", all(300, "content B", "", "content D", "")},
		{"top", "middle", append(all(400, "", "content B", "", "content A"), timed("d/new", "content A", 100))},
	}
	p := opened(t, testfs.Mount(t, "ext4"), "mtime=shared")
	for _, s := range []*differential.Side{p.Oracle, p.Ours} {
		for _, l := range layers {
			apply(t, s, l.id, l.parent, l.content)
		}
		// A layer for an image that is filled through its mount, and a container above it.
		err := errors.Join(
			s.Driver.Create("loose", "top", &graphdriver.CreateOpts{}),
			s.Mounted("loose", func(root string) error { return os.WriteFile(filepath.Join(root, "d/loose"), []byte("x"), 0o644) }),
			s.Driver.CreateReadWrite("container", "loose", &graphdriver.CreateOpts{}),
			s.Mounted("container", func(root string) error {
				return errors.Join(os.WriteFile(filepath.Join(root, "d/f1"), []byte("content Z"), 0o644), os.Remove(filepath.Join(root, "d/f2")))
			}),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, pair := range [][2]string{
		{"middle", "base"}, {"top", "middle"}, {"top", "base"}, {"base", "top"}, {"base", "first"}, {"top", "first"}, {"top", ""},
		{"loose", "top"}, {"loose", "base"}, {"loose", "middle"}, {"loose", "first"}, {"container", "loose"}, {"container", "top"}, {"container", "base"},
	} {
		var lists [][]string
		var sizes []int64
		for _, s := range []*differential.Side{p.Oracle, p.Ours} {
			list, err := s.Changes(pair[0], pair[1])
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(list)
			size, err := s.Driver.DiffSize(pair[0], nil, pair[1], nil, "")
			if err != nil {
				t.Fatal(err)
			}
			lists, sizes = append(lists, list), append(sizes, size)
		}
		if pair[0] == "loose" || pair[0] == "container" {
			// Mounts are all there is to compare: where nothing but times differs, that is lost.
			all := len(lists[0])
			lists[0] = slices.DeleteFunc(lists[0], func(line string) bool { return onlyTimes(p, pair, line) })
			if len(lists[0]) < all {
				sizes[0] = sizes[1]
			}
		}
		if !slices.Equal(lists[0], lists[1]) || sizes[0] != sizes[1] {
			t.Errorf("%s over %s: overlay says %q, %d bytes; ours %q, %d bytes", pair[0], pair[1], lists[0], sizes[0], lists[1], sizes[1])
		}
	}
}

// onlyTimes says whether a change is of a file whose content is the same in both.
func onlyTimes(p *differential.Pair, pair [2]string, line string) bool {
	var bodies [2]string
	for i, id := range pair {
		err := p.Oracle.Mounted(id, func(root string) error {
			b, err := os.ReadFile(filepath.Join(root, line[2:]))
			bodies[i] = string(b)
			return err
		})
		if err != nil {
			return false
		}
	}
	return line[0] == 'C' && bodies[0] == bodies[1]
}
