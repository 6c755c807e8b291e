package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestVectors does what `make vectors` does.
func TestVectors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners and security attributes are part of the objects")
	}
	if _, err := exec.LookPath("ostree"); err != nil {
		t.Skip("needs the ostree program:", err)
	}
	// ostree's program may be of another version than the one that made the
	// vectors: the bytes must not differ.
	if err := run(t.TempDir(), "../../store/object/testdata", false); err != nil {
		t.Error(err)
	}
}
