package layers

import (
	"context"
	"fmt"

	"github.com/ostree-storage/ostree-storage/store"
)

// Frees says of each of the sets of layers what removing it alone would free, and changes nothing.
func (c *Catalog) Frees(ctx context.Context, sets ...[]string) ([]store.Frees, error) {
	going := make([]store.Going, len(sets))
	for i, ids := range sets {
		for _, id := range ids {
			if err := checkLayerID(id); err != nil {
				return nil, err
			}
			going[i].Refs = append(going[i].Refs, layerRef(id))
			going[i].Dirs = append(going[i].Dirs, (&Layer{ID: id, catalog: c}).Dir())
		}
	}
	each, err := c.repo.Frees(ctx, going...)
	if err != nil {
		return nil, fmt.Errorf("layers in %s: %w", c.home, err)
	}
	return each, nil
}
