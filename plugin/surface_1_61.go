//go:build containers_storage_1_61

package plugin

import graphdriver "go.podman.io/storage/drivers"

// A surface adds the methods of v1.61, the first release under this path.
type surface[C ~func() error, M ~int] struct {
	base[C, M]
}

// newSurfaceOf exists for its parameters' types alone.
func newSurfaceOf[C ~func() error, M ~int](a adapter, _ func(graphdriver.Driver, string) (C, error), _ func(either) M) *surface[C, M] {
	return &surface[C, M]{base[C, M]{a}}
}

func newSurface(a adapter) graphdriver.Driver {
	return newSurfaceOf(a, graphdriver.Driver.DeferredRemove, either.SyncMode)
}

// ApplyDiff has a parent, which the driver knows.
func (s *surface[C, M]) ApplyDiff(id, _ string, o graphdriver.ApplyDiffOpts) (int64, error) {
	n, err := s.d.ApplyDiff(id, applyOptions(o))
	return n, upstream(err)
}
