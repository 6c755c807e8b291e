// Command x may import anything.
package main

import (
	_ "example.com/anything"
	_ "github.com/ostree-storage/ostree-storage/driver"
)
