//go:build !containers_storage_1_61

package plugin

import graphdriver "go.podman.io/storage/drivers"

// A surface adds the methods that v1.62 changed or brought. S is tempdir.StagedAddition, of an internal package there.
type surface[C ~func() error, S ~struct{ Path string }, M ~int] struct {
	base[C, M]
}

// newSurfaceOf exists for its parameters' types alone.
func newSurfaceOf[C ~func() error, S ~struct{ Path string }, M ~int](
	a adapter,
	_ func(graphdriver.ApplyDiffStaging, string, graphdriver.ApplyDiffOpts) (C, *S, int64, error),
	_ func(either) M,
) *surface[C, S, M] {
	return &surface[C, S, M]{base[C, M]{a}}
}

func newSurface(a adapter) graphdriver.Driver {
	return newSurfaceOf(a, graphdriver.ApplyDiffStaging.StartStagingDiffToApply, either.SyncMode)
}

func (s *surface[C, S, M]) ApplyDiff(id string, o graphdriver.ApplyDiffOpts) (int64, error) {
	n, err := s.d.ApplyDiff(id, applyOptions(o))
	return n, upstream(err)
}

// StartStagingDiffToApply ingests a layer tar while nobody holds a lock. The staged layer's place is all that containers/storage is
// told; driver knows the rest by it.
func (s *surface[C, S, M]) StartStagingDiffToApply(parent string, o graphdriver.ApplyDiffOpts) (C, *S, int64, error) {
	staged, err := s.d.StageDiff(parent, applyOptions(o))
	if err != nil {
		return nil, nil, -1, upstream(err)
	}
	addition := S(struct{ Path string }{staged.Path})
	return staged.Close, &addition, staged.Size, nil
}

func (s *surface[C, S, M]) CommitStagedLayer(id string, addition *S) error {
	return upstream(s.d.CommitStaged(id, (struct{ Path string })(*addition).Path))
}
