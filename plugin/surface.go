package plugin

import (
	"reflect"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A base adds the methods whose types have no name here: that of an internal package of containers/storage, or one that only some
// of its versions have. Its type arguments stand for them, and are inferred from containers/storage's own method expressions:
// C is tempdir.CleanupTempDirFunc, M is graphdriver.SyncMode where there is one.
type base[C ~func() error, M ~int] struct {
	adapter
}

// An earlier driver has what containers/storage before v1.63 lacks.
type earlier struct{}

func (earlier) SyncMode() int { return 0 }

// either.SyncMode is containers/storage's own method where it has one, because earlier's is embedded more deeply, and
// earlier's otherwise. Nothing calls it: its type is what it is for.
type either struct {
	graphdriver.Driver
	beneath
}

type beneath struct{ earlier }

var _ interface{ SyncMode() int } = either{}.beneath

// The values that containers/storage gave graphdriver.SyncModeNone and SyncModeFilesystem, which v1.62 cannot name.
const (
	syncNone = iota
	syncFilesystem
)

// unmapped says whether a mount must not be idmapped: a field that containers/storage has until v1.63.
func unmapped(o graphdriver.MountOpts) bool {
	f := reflect.ValueOf(o).FieldByName("DisableShifting")
	return f.IsValid() && f.Bool()
}

// imageStore is where read-only layers go, if not to the graphroot.
func imageStore(o graphdriver.Options) string { return o.ImageStore }

func (b *base[C, M]) DeferredRemove(id string) (C, error) {
	cleanup, err := b.d.DeferredRemove(id)
	return C(cleanup), upstream(err)
}

// GetTempDirRootDirs names nothing: staging and trash are the repository's, which recovers them itself.
func (b *base[C, M]) GetTempDirRootDirs() []string { return nil }

// Dedup finds nothing to do: equal files are one object from the moment they arrive.
func (b *base[C, M]) Dedup(graphdriver.DedupArgs) (graphdriver.DedupResult, error) {
	b.d.Dedup()
	return graphdriver.DedupResult{}, nil
}

func (b *base[C, M]) SyncMode() M {
	if b.d.SyncMode() == driver.SyncNone {
		return syncNone
	}
	return syncFilesystem
}

func (b *base[C, M]) SupportsShifting(uids, gids []idtools.IDMap) bool {
	return b.d.SupportsShifting(driver.Mappings{UIDs: idMaps(uids), GIDs: idMaps(gids)})
}
