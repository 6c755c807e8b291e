package differential_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// storeBudget is how long chains go through whole stores, when there is no SOAK.
const storeBudget = 12 * time.Second

// stores opens a store of each driver below dir.
func stores(t *testing.T, dir string) *differential.StorePair {
	t.Helper()
	oracle, err := differential.OpenStore("overlay", "overlay", filepath.Join(dir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	our, err := differential.OpenStore("ours", *ours, filepath.Join(dir, "ours"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range []*differential.StoreSide{oracle, our} {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return &differential.StorePair{Oracle: oracle, Ours: our}
}

// TestStores sends chains through containers/storage: every layer comes back bit
// for bit, after a restart too, and upstream's check finds nothing.
func TestStores(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay does not give back entries below absolute symlinks, and hangs on some fifos")
	}
	t.Parallel()
	p := stores(t, testfs.Mount(t, "ext4"))
	first, end := max(*seed, 1), time.Now().Add(storeBudget)
	if soak, err := time.ParseDuration(os.Getenv("SOAK")); err == nil {
		end = time.Now().Add(soak)
		if *seed == 0 {
			first = uint64(time.Now().Unix()) << 20
		}
	}
	n := uint64(0)
	for ; time.Now().Before(end) && (*number == 0 || n < uint64(*number)); n++ {
		chain, features := differential.Generate(first + n)
		diffs, err := p.Run(chain)
		if err != nil {
			t.Fatalf("seed %d (%s): %v", first+n, features, err)
		}
		if len(diffs) > 0 {
			t.Fatalf("seed %d (%s):\n%s%s", first+n, features, format(diffs), chain)
		}
	}
	t.Logf("%d chains through both stores", n)
}

// TestStoresRefuseDuplicates: a name twice in one tar is no business of the driver
// alone; containers/storage refuses it, for the same reason, and nothing is left.
func TestStoresRefuseDuplicates(t *testing.T) {
	t.Parallel()
	p := stores(t, testfs.Mount(t, "ext4"))
	for name, l := range map[string]differential.Layer{
		"files":             {regular("a", "one"), regular("a", "two")},
		"spelled otherwise": {regular("a", "one"), regular("./a", "two")},
		"equal":             {regular("a", "one"), regular("b", "x"), regular("a", "one")},
		"file and symlink":  {regular("a", "one"), {Name: "a", Type: tar.TypeSymlink, Link: "b", Mode: 0o777, MTime: at}},
	} {
		b, err := l.Tar()
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, s := range []*differential.StoreSide{p.Oracle, p.Ours} {
			layer, _, err := s.Store.PutLayer("", "", nil, "", false, nil, bytes.NewReader(b))
			if err == nil {
				said = append(said, "taken")
				err = s.Store.DeleteLayer(layer.ID)
				if err != nil {
					t.Error(err)
				}
				continue
			}
			said = append(said, "refused: "+reason(err))
			if left, err := s.Store.Layers(); err != nil || len(left) > 0 {
				t.Errorf("%s: %s has layers left: %v, %v", name, s.Name, left, err)
			}
		}
		if said[0] != said[1] {
			t.Errorf("%s: overlay says %q, ours says %q", name, said[0], said[1])
		}
		t.Logf("%s: %s", name, said[1])
	}
}

// reason is the cause of a refusal, which each driver wraps in its own words.
func reason(err error) string {
	const duplicates = "duplicates of file paths not supported"
	if strings.Contains(err.Error(), duplicates) {
		return duplicates
	}
	return err.Error()
}

// TestStoresGiveBack: what means something to overlayfs, or is written in another
// way than Go writes it, comes back bit for bit after a restart.
func TestStoresGiveBack(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("there, attributes of the image act on the layer")
	}
	t.Parallel()
	acting := differential.Layer{
		with(directory("opaque/"), "trusted.overlay.opaque", "y", "user.overlay.opaque", "y"), regular("opaque/inside", "x"),
		with(regular("redirected", "x"), "trusted.overlay.redirect", "/etc/shadow", "trusted.overlay.metacopy", ""),
		with(regular("whiteout", ""), "trusted.overlay.whiteout", "y", "user.overlay.whiteout", "y"),
		with(regular("twice", "y"), "trusted.overlay.overlay.opaque", "y"),
		{Name: "zero", Type: tar.TypeChar, Mode: 0o600, MTime: at}, {Name: "opaque/zero", Type: tar.TypeChar, Mode: 0, MTime: at},
		{Name: "zero2", Type: tar.TypeLink, Link: "zero", Mode: 0o600, MTime: at},
		regular(".wh.gone", ""), regular("opaque/.wh..wh..opq", ""),
	}
	tars := map[string][]byte{}
	for name, l := range map[string]differential.Layer{"overlay's own": acting, "spelled": {regular("./a", "x"), regular("/b", "y"), regular("c//d", "z")}} {
		b, err := l.Tar()
		if err != nil {
			t.Fatal(err)
		}
		tars[name] = b
	}
	p := stores(t, testfs.Mount(t, "ext4"))
	parent, ids := "", map[string]string{}
	for name, b := range tars {
		layer, _, err := p.Ours.Store.PutLayer("", parent, nil, "", false, nil, bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		parent, ids[name] = layer.ID, layer.ID
	}
	for _, when := range []string{"at once", "after a restart"} {
		for name, b := range tars {
			if got, err := p.Ours.Diff(ids[name]); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s, %s: %d bytes of %d come back, %v", name, when, len(got), len(b), err)
			}
		}
		if err := p.Ours.Restart(); err != nil {
			t.Fatal(err)
		}
	}
}

// sparseTar has GNU tar pack a file with holes in its own way.
func sparseTar(t *testing.T, format string) []byte {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1 << 20, 3<<20 + 17, 3<<20 + 40000} {
		if _, err := f.WriteAt([]byte("data at an offset"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(5<<20+1), f.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-C", dir, "--format="+format, "--sparse", "-cf", "-", "sparse").Output()
	if err != nil {
		t.Fatalf("tar: %v", err)
	}
	if len(out) > 1<<20 {
		t.Fatalf("tar made %d bytes: it did not see the holes", len(out))
	}
	return out
}

// TestSparseTars: what GNU tar packs without its holes in the POSIX way has them
// again in the tree, and reads as on overlay. What containers/storage keeps of such
// a tar does not say how it was packed: it comes back with its zeros, the same from
// both drivers. GNU's old way is refused, as it is there.
func TestSparseTars(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		p := opened(t, dir)
		packed := sparseTar(t, "posix")
		for _, s := range []*differential.Side{p.Oracle, p.Ours} {
			if _, err := s.Apply("sparse", "", packed, true); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Apply("old", "", sparseTar(t, "gnu"), true); err == nil || !strings.Contains(err.Error(), "tar header type") {
				t.Errorf("the old way on %s: %v", s.Name, err)
			}
		}
		compareTrees(t, p, "sparse", "sparse", differential.Rules{Implied: map[string]bool{".": true}, ImageRoot: true}, "ro")
		tree, err := p.Ours.Tree("sparse", "ro")
		if err != nil {
			t.Fatal(err)
		}
		if n := tree.At("sparse"); n.Size != 5<<20+1 || n.Hole < 4<<20 || n.Blocks*512 > 1<<20 {
			t.Errorf("%d bytes, of them %d in holes; %d blocks", n.Size, n.Hole, n.Blocks)
		}
		both := stores(t, filepath.Join(dir, "stores"))
		var back [][]byte
		for _, s := range []*differential.StoreSide{both.Oracle, both.Ours} {
			layer, _, err := s.Store.PutLayer("", "", nil, "", false, nil, bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.Diff(layer.ID)
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, b)
		}
		if !bytes.Equal(back[0], back[1]) {
			t.Errorf("overlay gives back %d bytes, ours %d", len(back[0]), len(back[1]))
		}
	})
}
