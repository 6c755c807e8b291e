package layers

import (
	"errors"
	"fmt"
)

// Catalogs are the homes of one driver: its own, then those of additional stores.
type Catalogs []*Catalog

// Find returns a layer from the first catalog that has it; the error matches ErrUnknown if none has.
func (cs Catalogs) Find(id string) (*Layer, error) { return cs.find(id, true) }

func (cs Catalogs) find(id string, ancestors bool) (*Layer, error) {
	for _, c := range cs {
		l, err := c.load(id, ancestors)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		return l, err
	}
	return nil, fmt.Errorf("layer %s: %w", id, ErrUnknown)
}

// Chain returns a layer and its ancestors, nearest first. The error matches ErrUnknown if one of them is in no catalog.
func (cs Catalogs) Chain(id string) ([]*Layer, error) {
	l, err := cs.find(id, true)
	if err != nil {
		return nil, err
	}
	chain := make([]*Layer, 1, 1+len(l.Ancestors))
	chain[0] = l
	for _, a := range l.Ancestors {
		l, err := cs.find(a, false)
		if err != nil {
			return nil, fmt.Errorf("ancestor of layer %s: %w", id, err)
		}
		chain = append(chain, l)
	}
	return chain, nil
}
