package layers_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/layers"
)

// TestStageDebian applies a real root. It runs where LAYERS_TAR names one.
func TestStageDebian(t *testing.T) {
	path := os.Getenv("LAYERS_TAR")
	if path == "" {
		t.Skip("LAYERS_TAR names no tar of a root")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := openCatalog(t, t.TempDir()+"/home", layers.Options{})
	for _, id := range []string{"new", "known"} {
		start := time.Now()
		l := apply(t, c, id, "", bytes.Clone(data))
		t.Logf("%s: %v, %d entries, %d bytes", id, time.Since(start), l.Entries, l.Size)
	}
}
