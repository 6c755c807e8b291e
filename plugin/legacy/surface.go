package legacy

import (
	graphdriver "github.com/containers/storage/drivers"
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

// unmapped says whether a mount must not be idmapped.
func unmapped(o graphdriver.MountOpts) bool { return o.DisableShifting }
