// Package legacy imports the other upstream.
package legacy

import (
	_ "github.com/containers/storage/drivers"
	_ "github.com/containers/storages"
	_ "github.com/ostree-storage/ostree-storage/driver"
	_ "go.podman.io/storage/drivers"
)
