package layers

import (
	"errors"
	"fmt"
)

// errUnmapped is wrapped by errors about an owner that no mapping covers.
var errUnmapped = errors.New("id has no mapping")

// idMaps turns owners on disk into owners in a container. The zero value changes nothing.
type idMaps struct {
	uids, gids []IDMap
}

func (m idMaps) empty() bool { return len(m.uids) == 0 && len(m.gids) == 0 }

// mapID returns the container's id for an id on disk. Without maps it is the same.
func mapID(host uint32, maps []IDMap) (int, error) {
	if len(maps) == 0 {
		return int(host), nil
	}
	for _, m := range maps {
		if d := int(host) - m.HostID; d >= 0 && d < m.Size {
			return m.ContainerID + d, nil
		}
	}
	return 0, fmt.Errorf("map owner %d: %w", host, errUnmapped)
}

// owner maps a user and a group.
func (m idMaps) owner(uid, gid uint32) (int, int, error) {
	u, err := mapID(uid, m.uids)
	if err != nil {
		return 0, 0, err
	}
	g, err := mapID(gid, m.gids)
	return u, g, err
}
