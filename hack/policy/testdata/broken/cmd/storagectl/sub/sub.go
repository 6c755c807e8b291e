// Package sub may import what its program may.
package sub

import (
	_ "example.com/anything"
	_ "github.com/ostree-storage/ostree-storage/driver"
	_ "github.com/ostree-storage/ostree-storage/layers"
)
