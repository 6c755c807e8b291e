package legacy

import (
	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A common surface has what all the versions here have, and package plugin's have not.
type common struct {
	adapter
}

// ApplyDiff has a parent, which the driver knows.
func (s common) ApplyDiff(id, _ string, o graphdriver.ApplyDiffOpts) (int64, error) {
	n, err := s.d.ApplyDiff(id, applyOptions(o))
	return n, upstream(err)
}

func mountMappings(o graphdriver.MountOpts) driver.Mappings {
	if o.DisableShifting {
		return driver.Mappings{}
	}
	return driver.Mappings{UIDs: idMaps(o.UidMaps), GIDs: idMaps(o.GidMaps)}
}
