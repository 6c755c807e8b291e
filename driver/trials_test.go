package driver_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A process that died in its very first use of a graphroot leaves trials in the home, and nothing else: the next one makes its home there.
func TestHomeWithTrialsOfTheDead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(home(dir), 0o700))
	old := time.Now().Add(-time.Hour)
	for name, gone := range map[string]bool{".overlay-probe-1": true, ".link-2": true, ".overlay-probe-3": false} {
		path := filepath.Join(home(dir), name)
		must(t, os.MkdirAll(filepath.Join(path, "upper"), 0o700))
		if gone {
			must(t, os.Chtimes(path, old, old))
		}
	}
	open(t, dir)
	left, err := filepath.Glob(filepath.Join(home(dir), ".*-*"))
	must(t, err)
	if len(left) != 1 || filepath.Base(left[0]) != ".overlay-probe-3" { // which a live process may have made
		t.Errorf("left are %q", left)
	}
}
