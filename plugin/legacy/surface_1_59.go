//go:build !containers_storage_1_43 && !containers_storage_1_57

package legacy

import (
	graphdriver "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A surface adds the methods of v1.59. DeferredRemove names a type of an internal package there, for which the type argument
// stands: it is inferred from the interface's own method expression.
type surface[C ~func() error] struct {
	common
}

// newSurfaceOf exists for its parameters' types alone.
func newSurfaceOf[C ~func() error](a adapter, _ func(graphdriver.Driver, string) (C, error)) *surface[C] {
	return &surface[C]{common{a}}
}

func newSurface(a adapter) graphdriver.Driver {
	return newSurfaceOf(a, graphdriver.Driver.DeferredRemove)
}

// imageStore is where read-only layers go, if not to the graphroot.
func imageStore(o graphdriver.Options) string { return o.ImageStore }

func (s *surface[C]) DeferredRemove(id string) (C, error) {
	cleanup, err := s.d.DeferredRemove(id)
	return C(cleanup), upstream(err)
}

// GetTempDirRootDirs names nothing: staging and trash are the repository's, which recovers them itself.
func (s *surface[C]) GetTempDirRootDirs() []string { return nil }

// Dedup finds nothing to do: equal files are one object from the moment they arrive.
func (s *surface[C]) Dedup(graphdriver.DedupArgs) (graphdriver.DedupResult, error) {
	s.d.Dedup()
	return graphdriver.DedupResult{}, nil
}

func (s *surface[C]) SupportsShifting(uids, gids []idtools.IDMap) bool {
	return s.d.SupportsShifting(driver.Mappings{UIDs: idMaps(uids), GIDs: idMaps(gids)})
}
