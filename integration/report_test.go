package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// reportPaths says which removal paths were run and which were not, in the test's log and in build/not-run/, which `make test` prints:
// go test shows the log of no test that passes. A run with CRIO is by hand, and is not to be taken for one of `make test`.
func reportPaths(t *testing.T, run, left []string) {
	t.Helper()
	slices.Sort(left)
	line := fmt.Sprintf("%s: %d removal paths run, %d not run", t.Name(), len(run), len(left))
	if len(left) > 0 {
		line += ": " + strings.Join(left, "; ")
	}
	t.Log(line)
	if os.Getenv("CRIO") != "" {
		return
	}
	root, err := fixtures.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "build", "not-run")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, t.Name()), line+"\n")
}
