package differential_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	graphdriver "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// kinds are the filesystems for tests of real images: all of them only when
// there is time.
func kinds() []string {
	if os.Getenv("SOAK") != "" {
		return testfs.Kinds
	}
	return []string{"ext4"}
}

// TestRealImages compares the roots of whole Debian images.
func TestRealImages(t *testing.T) {
	set := fixtures.Require(t)
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			p := opened(t, testfs.MountOptions(t, kind, testfs.Options{Size: 8 << 30}))
			for _, name := range []string{"busybox", "full"} {
				compareImage(t, p, set.Need(t, name))
			}
		})
	}
}

func compareImage(t *testing.T, p *differential.Pair, image fixtures.Image) {
	t.Helper()
	var chain differential.Chain
	parent := ""
	for _, l := range image.Layers {
		b, err := os.ReadFile(l.Tar)
		if err != nil {
			t.Fatal(err)
		}
		id := l.DiffID[len("sha256:"):]
		for _, s := range []*differential.Side{p.Oracle, p.Ours} {
			if _, err := s.Apply(id, parent, b, true); err != nil {
				t.Fatalf("apply %s of %s: %v", id, image.Name, err)
			}
		}
		parent = id
		chain = append(chain, listed(t, l.Tar))
	}
	rules := differential.Rules{Implied: chain.Implied(), ImageRoot: true}
	compareTrees(t, p, image.Name, parent, rules, "ro")
	container := "container-" + image.Name
	for _, s := range []*differential.Side{p.Oracle, p.Ours} {
		if err := s.Driver.CreateReadWrite(container, parent, &graphdriver.CreateOpts{}); err != nil {
			t.Fatal(err)
		}
	}
	rules.ImageRoot, rules.Implied["."] = false, true
	compareTrees(t, p, "a container of "+image.Name, container, rules)
}

func compareTrees(t *testing.T, p *differential.Pair, name, id string, rules differential.Rules, options ...string) {
	t.Helper()
	want, err := p.Oracle.Tree(id, options...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Ours.Tree(id, options...)
	if err != nil {
		t.Fatal(err)
	}
	if diffs := differential.Compare(want, got, rules); len(diffs) > 0 {
		t.Errorf("%s:\n%s", name, format(diffs))
	}
	t.Logf("%s: %d paths", name, len(want.Nodes))
}

// listed reads the names and types of a tar's entries.
func listed(t *testing.T, file string) (l differential.Layer) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, differential.Entry{Name: h.Name, Type: h.Typeflag})
	}
}

// TestWhatLanesCost puts a family of images that were built independently into
// one store. What exactness costs is bounded: inodes of their own for equal files
// with other times, or in one root, are data only where there are no reflinks.
func TestWhatLanesCost(t *testing.T) {
	if *ours != "ostree" {
		t.Skip("only ours has lanes")
	}
	set := fixtures.Require(t)
	// Of these images, 1.105 is what exact times and equal files of a root need on
	// a filesystem without reflinks, and link counts 0.006.
	limits := map[string]float64{"ext4": 1.12, "xfs": 1.02, "btrfs": 1.02}
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			dir := testfs.MountOptions(t, kind, testfs.Options{Size: 8 << 30})
			p := opened(t, dir)
			var chains [][]string
			for _, image := range set.Family("main") {
				chains = append(chains, applyImage(t, p.Ours, image))
			}
			d, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := unix.Syncfs(int(d.Fd())); err != nil {
				t.Fatal(err)
			}
			c, err := differential.Measure(p.Ours.Home(), chains)
			if err != nil {
				t.Fatal(err)
			}
			ratio := float64(c.All) / float64(c.Unique)
			mb := func(n int64) float64 { return float64(n) / 1e6 }
			t.Logf("unique %.1f MB, ours %.1f MB (%.3f: other times %.1f MB, equal files of a root %.1f MB, private files %.1f MB), overlay %.1f MB",
				mb(c.Unique), mb(c.All), ratio, mb(c.Times), mb(c.Doubles), mb(c.Private), mb(c.Overlay))
			if c.Excess > 0 {
				t.Errorf("%d bytes are in lanes that no root needs", c.Excess)
			}
			if ratio > limits[kind] {
				t.Errorf("exactness costs %.3f times the unique data, at most %.2f is allowed", ratio, limits[kind])
			}
			if c.All > c.Overlay {
				t.Errorf("ours takes %d bytes, overlay %d", c.All, c.Overlay)
			}
		})
	}
}

func applyImage(t *testing.T, s *differential.Side, image fixtures.Image) (ids []string) {
	t.Helper()
	parent := ""
	for n, l := range image.Layers {
		b, err := os.ReadFile(l.Tar)
		if err != nil {
			t.Fatal(err)
		}
		id := filepath.Base(image.Name) + string(rune('0'+n))
		if _, err := s.Apply(id, parent, b, true); err != nil {
			t.Fatalf("apply %s: %v", id, err)
		}
		parent = id
		ids = append(ids, id)
	}
	return ids
}
