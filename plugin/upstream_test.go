package plugin_test

import (
	"testing"

	graphdriver "go.podman.io/storage/drivers"
)

// deepest is the longest chain of the conformance tests: as many lowers as overlayfs takes.
const deepest = 500

// checkSeesReadOnlyParents says that containers/storage's own check looks for the parents of layers in read-only stores too.
const checkSeesReadOnlyParents = true

// The adapter knows containers/storage's constants by their values, because v1.62 has none.
func TestSyncMode(t *testing.T) {
	for _, name := range []string{"none", "filesystem"} {
		want, err := graphdriver.ParseSyncMode(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := newDriver(t, "sync="+name).SyncMode(); got != want {
			t.Errorf("sync=%s is %v", name, got)
		}
	}
}
