//go:build containers_storage_1_57

package legacy

import (
	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A surface adds the methods of v1.57 and v1.58.
type surface struct {
	common
}

func newSurface(a adapter) graphdriver.Driver { return &surface{common{a}} }

// imageStore is where read-only layers go, if not to the graphroot.
func imageStore(o graphdriver.Options) string { return o.ImageStore }

// Dedup finds nothing to do: equal files are one object from the moment they arrive.
func (s *surface) Dedup(graphdriver.DedupArgs) (graphdriver.DedupResult, error) {
	s.d.Dedup()
	return graphdriver.DedupResult{}, nil
}

func (s *surface) SupportsShifting() bool { return s.d.SupportsShifting(driver.Mappings{}) }
