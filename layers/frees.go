package layers

import (
	"context"
	"fmt"

	"github.com/ostree-storage/ostree-storage/store"
)

// Frees says what removing these layers together would free, and changes nothing.
func (c *Catalog) Frees(ctx context.Context, ids []string) (store.Frees, error) {
	var g store.Going
	for _, id := range ids {
		if err := checkLayerID(id); err != nil {
			return store.Frees{}, err
		}
		g.Refs = append(g.Refs, layerRef(id))
		g.Dirs = append(g.Dirs, (&Layer{ID: id, catalog: c}).Dir())
	}
	f, err := c.repo.Frees(ctx, g)
	if err != nil {
		return f, fmt.Errorf("layers in %s: %w", c.home, err)
	}
	return f, nil
}
