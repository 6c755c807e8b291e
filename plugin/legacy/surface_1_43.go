//go:build containers_storage_1_43

package legacy

import (
	"reflect"

	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A surface adds the methods of v1.43 to v1.56.
type surface struct {
	common
}

func newSurface(a adapter) graphdriver.Driver { return &surface{common{a}} }

// imageStore is where read-only layers go, if not to the graphroot. v1.43 does not have the field.
func imageStore(o graphdriver.Options) string {
	if f := reflect.ValueOf(o).FieldByName("ImageStore"); f.IsValid() {
		return f.String()
	}
	return ""
}

func (s *surface) SupportsShifting() bool { return s.d.SupportsShifting(driver.Mappings{}) }
