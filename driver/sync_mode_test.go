package driver_test

import (
	"bytes"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
)

// TestSyncModeIsThatOfTheLastChange goes through the calls after which containers/storage asks whether to sync before it records them.
func TestSyncModeIsThatOfTheLastChange(t *testing.T) {
	b, _ := ownersTar(t)
	for _, mode := range []string{"filesystem", "none"} {
		d := open(t, t.TempDir(), "sync="+mode)
		configured := d.SyncMode()
		staged := func(id string) error {
			s, err := d.StageDiff("", driver.ApplyOptions{Diff: bytes.NewReader(b)})
			if err != nil {
				return err
			}
			must(t, d.Create(id, "", nil))
			must(t, d.CommitStaged(id, s.Path))
			return s.Close()
		}
		for _, change := range []struct {
			what string
			do   func() error
			want driver.SyncMode
		}{
			{"nothing", func() error { return nil }, configured},
			{"a staged layer", func() error { return staged("one") }, driver.SyncNone},
			{"an empty layer", func() error { return d.Create("two", "one", nil) }, configured},
			{"another staged layer", func() error { return staged("three") }, driver.SyncNone},
			{"a layer whose tar-split is written later", func() error {
				_, err := d.ApplyDiff("two", driver.ApplyOptions{Diff: bytes.NewReader(b)})
				return err
			}, configured},
			{"a container", func() error { return d.CreateReadWrite("c", "one", nil) }, driver.SyncNone},
			{"a copy with a tar-split", func() error { return d.CreateFromTemplate("four", "one", "", nil, true) }, configured},
			{"another container", func() error { return d.CreateReadWrite("mapped", "one", nil) }, driver.SyncNone},
			{"its owners", func() error { return d.UpdateLayerIDMap("mapped", driver.Mappings{}, mapped(100000), "") }, configured},
		} {
			must(t, change.do())
			if got := d.SyncMode(); got != change.want {
				t.Errorf("sync=%s: after %s it is %v, not %v", mode, change.what, got, change.want)
			}
		}
	}
}
