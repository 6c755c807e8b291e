// Package object imports another room.
package object

import "github.com/ostree-storage/ostree-storage/store"

// V is documented.
var V = store.V
