package differential_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	graphdriver "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// kinds are the filesystems for tests of real images, and large the largest image
// that they take: all filesystems, and the largest there is, only when there is time.
func kinds() []string {
	if os.Getenv("SOAK") != "" {
		return testfs.Kinds
	}
	return []string{"ext4"}
}

func large() string {
	if os.Getenv("SOAK") != "" {
		return "full"
	}
	return "python"
}

// TestRealImages compares the roots of whole Debian images.
func TestRealImages(t *testing.T) {
	t.Parallel()
	set := fixtures.Require(t)
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			p := opened(t, testfs.MountOptions(t, kind, testfs.Options{Size: 8 << 30}))
			for _, name := range []string{"busybox", large()} {
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
// The driver's own figure is what is measured. Where there is no time, ext4 gets
// three images of the family, and xfs and btrfs two.
func TestWhatLanesCost(t *testing.T) {
	if *ours != "ostree" {
		t.Skip("only ours has lanes")
	}
	t.Parallel()
	set := fixtures.Require(t)
	for _, kind := range testfs.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			images := set.Family("main")
			if os.Getenv("SOAK") == "" {
				images = []fixtures.Image{set.Need(t, "python"), set.Need(t, "web")}
				if kind == "ext4" {
					images = append(images, set.Need(t, "node"))
				}
			}
			dir := testfs.MountOptions(t, kind, testfs.Options{Size: 8 << 30})
			p := opened(t, dir)
			var chains [][]string
			for _, image := range images {
				chains = append(chains, applyImage(t, p.Ours, image))
			}
			syncAll(t, dir)
			c, err := differential.Measure(p.Ours.Home(), chains, kind != "ext4")
			if err != nil {
				t.Fatal(err)
			}
			checkCost(t, c, kind)
			said := ""
			for _, line := range p.Ours.Driver.Status() {
				if line[0] == "Lanes" {
					said = line[1]
				}
			}
			if want := fmt.Sprintf(", %d bytes, 0 unused", c.Times+c.Doubles+c.Links); !strings.HasSuffix(said, want) {
				t.Errorf("the driver's status says %q of lanes, measured is %q", said, want)
			}
		})
	}
}

// checkCost holds what was measured against the limits: 1.10 times the unique
// data, and 1.02 with reflinks. The fixture family needs 1.11 where there are none,
// whoever stores it in hardlinks: then that is the limit.
func checkCost(t *testing.T, c differential.Cost, kind string) {
	t.Helper()
	part := func(n int64) float64 { return float64(n) / float64(c.Unique) }
	mb := func(n int64) float64 { return float64(n) / 1e6 }
	t.Logf("unique %.1f MB; ours %.1f MB (%.4f: other times %.1f MB, equal files of a root %.1f MB, own link counts %.1f MB); needed %.1f MB (%.4f); overlay %.1f MB",
		mb(c.Unique), mb(c.All), part(c.All), mb(c.Times), mb(c.Doubles), mb(c.Private), mb(c.Least), part(c.Least), mb(c.Overlay))
	limit := 1.02
	if kind == "ext4" {
		limit = max(1.10, 1.001*part(c.Least))
	}
	if part(c.All) > limit {
		t.Errorf("exactness costs %.4f times the unique data, at most %.4f is allowed", part(c.All), limit)
	}
	if c.Excess > 0 {
		t.Errorf("%d bytes are in lanes that no root needs", c.Excess)
	}
	if c.All > c.Overlay {
		t.Errorf("ours takes %d bytes, overlay %d", c.All, c.Overlay)
	}
}

func syncAll(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Fatal(err)
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
