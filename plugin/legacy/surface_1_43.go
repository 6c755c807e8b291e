//go:build containers_storage_1_43

package legacy

import (
	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A surface adds the methods of v1.43 to v1.56.
type surface struct {
	common
}

func newSurface(a adapter) graphdriver.Driver { return &surface{common{a}} }

func (s *surface) SupportsShifting() bool { return s.d.SupportsShifting(driver.Mappings{}) }
