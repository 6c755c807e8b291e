package driver

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ostree-storage/ostree-storage/layers"
)

// A mappedCost is what UpdateLayerIDMap took for one layer. It is kept beside the copies, for Status.
type mappedCost struct {
	Entries int64 `json:"entries"` // files, directories and others that got another owner
	Bytes   int64 `json:"bytes"`   // blocks of the files among them
	Reflink bool  `json:"reflink"` // the blocks are shared with the files that were copied
}

const mappedCostName = "mapped.cost"

func mappedCostPath(l *layers.Layer) string { return filepath.Join(l.Dir(), mappedCostName) }

func (c mappedCost) write(l *layers.Layer) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(mappedCostPath(l), append(b, '\n'), 0o600)
}

// mappedStatus says how many layers have copies with other owners, what these take, and why there are any.
func (d *Driver) mappedStatus() string {
	var n int
	var sum mappedCost
	for _, c := range d.stores.own() {
		ids, err := c.IDs()
		if err != nil {
			return err.Error()
		}
		for _, id := range ids {
			// Nearly all layers have none.
			b, err := os.ReadFile(filepath.Join(c.Home(), "layers", id, mappedCostName))
			var one mappedCost
			if err != nil || json.Unmarshal(b, &one) != nil {
				continue
			}
			n++
			sum.Entries += one.Entries
			sum.Bytes += one.Bytes
			sum.Reflink = one.Reflink
		}
	}
	if n == 0 {
		return "none"
	}
	how := "copied"
	if sum.Reflink {
		how = "shared by reflink"
	}
	why := "the kernel or the filesystem has no idmapped lower directories"
	if d.SupportsShifting(Mappings{}) {
		why = "the program did not ask for an idmapped mount"
	}
	return fmt.Sprintf("%d layers, %d entries, %d bytes of files %s: %s", n, sum.Entries, sum.Bytes, how, why)
}
