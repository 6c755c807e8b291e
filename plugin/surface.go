package plugin

import (
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A surface adds the methods that differ from version to version of containers/storage.
//
// Three of them name types of an internal package there. Its type arguments stand for these, and are inferred
// from containers/storage's own method expressions: C is tempdir.CleanupTempDirFunc, P is *tempdir.StagedAddition.
type surface[C ~func() error, S ~struct{ Path string }] struct {
	adapter
}

// newSurfaceOf exists for its parameters' types alone.
func newSurfaceOf[C ~func() error, S ~struct{ Path string }](
	a adapter,
	_ func(graphdriver.ApplyDiffStaging, string, graphdriver.ApplyDiffOpts) (C, *S, int64, error),
) *surface[C, S] {
	return &surface[C, S]{a}
}

func newSurface(a adapter) graphdriver.Driver {
	return newSurfaceOf(a, graphdriver.ApplyDiffStaging.StartStagingDiffToApply)
}

func mountMappings(o graphdriver.MountOpts) driver.Mappings {
	return driver.Mappings{UIDs: idMaps(o.UidMaps), GIDs: idMaps(o.GidMaps)}
}

// imageStore is where read-only layers go, if not to the graphroot.
func imageStore(o graphdriver.Options) string { return o.ImageStore }

func (s *surface[C, S]) DeferredRemove(id string) (C, error) {
	cleanup, err := s.d.DeferredRemove(id)
	return C(cleanup), upstream(err)
}

// GetTempDirRootDirs names nothing: staging and trash are the repository's, which recovers them itself.
func (s *surface[C, S]) GetTempDirRootDirs() []string { return nil }

// Dedup finds nothing to do: equal files are one object from the moment they arrive.
func (s *surface[C, S]) Dedup(graphdriver.DedupArgs) (graphdriver.DedupResult, error) {
	s.d.Dedup()
	return graphdriver.DedupResult{}, nil
}

func (s *surface[C, S]) SyncMode() graphdriver.SyncMode {
	if s.d.SyncMode() == driver.SyncNone {
		return graphdriver.SyncModeNone
	}
	return graphdriver.SyncModeFilesystem
}

func (s *surface[C, S]) ApplyDiff(id string, o graphdriver.ApplyDiffOpts) (int64, error) {
	n, err := s.d.ApplyDiff(id, applyOptions(o))
	return n, upstream(err)
}

func (s *surface[C, S]) SupportsShifting(uids, gids []idtools.IDMap) bool {
	return s.d.SupportsShifting(driver.Mappings{UIDs: idMaps(uids), GIDs: idMaps(gids)})
}

// StartStagingDiffToApply ingests a layer tar while nobody holds a lock. The staged layer's place is all that containers/storage is
// told; driver knows the rest by it.
func (s *surface[C, S]) StartStagingDiffToApply(parent string, o graphdriver.ApplyDiffOpts) (C, *S, int64, error) {
	staged, err := s.d.StageDiff(parent, applyOptions(o))
	if err != nil {
		return nil, nil, -1, upstream(err)
	}
	addition := S(struct{ Path string }{staged.Path})
	return staged.Close, &addition, staged.Size, nil
}

func (s *surface[C, S]) CommitStagedLayer(id string, addition *S) error {
	return upstream(s.d.CommitStaged(id, (struct{ Path string })(*addition).Path))
}
