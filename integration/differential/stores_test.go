package differential_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// storeBudget is how long chains go through whole stores.
const storeBudget = 12 * time.Second

// TestStores sends chains through containers/storage: every layer comes back bit
// for bit, after a restart too, and upstream's check finds nothing.
func TestStores(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay does not give back entries below absolute symlinks, and hangs on some fifos")
	}
	dir := testfs.Mount(t, "ext4")
	oracle, err := differential.OpenStore("overlay", "overlay", filepath.Join(dir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	our, err := differential.OpenStore("ours", *ours, filepath.Join(dir, "ours"))
	if err != nil {
		t.Fatal(err)
	}
	p := &differential.StorePair{Oracle: oracle, Ours: our}
	t.Cleanup(func() {
		for _, s := range []*differential.StoreSide{oracle, our} {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	first, end := max(*seed, 1), time.Now().Add(storeBudget)
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
