package differential_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// segment is how many layers the driver mounts as one directory (docs/format.md §6.1).
const segment = 64

// TestDeepChains runs chains on a pile of layers, so that their first layer ends a segment that lies over another, with random layers
// below, in and above it.
func TestDeepChains(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 127 layers")
	}
	t.Parallel()
	p := opened(t, testfs.Mount(t, "ext4"), "ostree.sync=none")
	random := func(first uint64, n int) {
		for seed := first; p.Depth() < n; seed++ {
			c, _ := differential.Generate(seed)
			if err := p.Lay(c[:min(len(c), n-p.Depth())]); err != nil {
				t.Fatal(err)
			}
		}
	}
	random(9_000, 6)
	for n := p.Depth(); n < 2*segment-6; n++ {
		l := differential.Layer{directory("fill/"), regular("fill/x", fmt.Sprint(n)), regular(fmt.Sprintf("fill/%d", n), "")}
		if err := p.Lay(differential.Chain{l}); err != nil {
			t.Fatal(err)
		}
	}
	random(9_100, 2*segment-1)
	seeds := uint64(2)
	if os.Getenv("SOAK") != "" {
		seeds = 40
	}
	for seed := range seeds {
		runSeed(t, p, 1+seed)
	}
	if p.Stats.Paths < 1000 {
		t.Error("this compares too little to mean anything")
	}
}
