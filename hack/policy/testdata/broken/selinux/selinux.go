// Package selinux imports a room that it may not know.
package selinux

import (
	_ "os/exec"

	_ "github.com/ostree-storage/ostree-storage/layers"
)
