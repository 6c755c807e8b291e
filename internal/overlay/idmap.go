package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Range maps Size ids from Container on, as they are on disk, to those from Host on.
type Range struct{ Container, Host, Size uint32 }

// An IDMap says which owners a mount shows for the owners on disk, as uid_map and gid_map of a user namespace do.
// An id that it does not hold is shown as the overflow id, 65534.
type IDMap struct{ UIDs, GIDs []Range }

// maxRanges is how many ranges a user namespace takes (user_namespaces(7)).
const maxRanges = 340

// Validate says why no user namespace can have the map. One that the caller may not make is still valid.
func (m *IDMap) Validate() error {
	for _, kind := range []struct {
		name   string
		ranges []Range
	}{{"uid", m.UIDs}, {"gid", m.GIDs}} {
		if err := validateRanges(kind.ranges); err != nil {
			return fmt.Errorf("%s map: %w", kind.name, err)
		}
	}
	return nil
}

func validateRanges(ranges []Range) error {
	if len(ranges) == 0 {
		return errors.New("no ranges")
	}
	if len(ranges) > maxRanges {
		return fmt.Errorf("%d ranges, and the kernel takes %d", len(ranges), maxRanges)
	}
	for _, side := range []func(Range) uint32{
		func(r Range) uint32 { return r.Container },
		func(r Range) uint32 { return r.Host },
	} {
		sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int { return cmp.Compare(side(a), side(b)) })
		var next uint64
		for _, r := range sorted {
			end := uint64(side(r)) + uint64(r.Size)
			switch {
			case r.Size == 0:
				return fmt.Errorf("range %s is empty", r)
			case end > math.MaxUint32: // the last id is (uid_t)-1, which is none
				return fmt.Errorf("range %s goes beyond the last id", r)
			case uint64(side(r)) < next:
				return fmt.Errorf("range %s overlaps another", r)
			}
			next = end
		}
	}
	return nil
}

func (r Range) String() string { return fmt.Sprintf("%d:%d:%d", r.Container, r.Host, r.Size) }

// lines is the text of uid_map or gid_map.
func lines(ranges []Range) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d %d\n", r.Container, r.Host, r.Size)
	}
	return b.String()
}
