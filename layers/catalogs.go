package layers

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
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
	above, err := EachOf(l.Ancestors, func(a string) (*Layer, error) { return cs.find(a, false) })
	if err != nil {
		return nil, fmt.Errorf("ancestor of layer %s: %w", id, err)
	}
	return append([]*Layer{l}, above...), nil
}

// manyLayers is from how many on a chain is looked at by several goroutines: each layer costs a few system calls.
const manyLayers = 32

// EachOf calls f for each of a list, on all cores if it is long, and returns the results in order.
func EachOf[T, R any](list []T, f func(T) (R, error)) ([]R, error) {
	out := make([]R, len(list))
	parts := 1
	if len(list) >= manyLayers {
		parts = runtime.GOMAXPROCS(0)
	}
	var g errgroup.Group
	for p := range parts {
		g.Go(func() (err error) {
			for i := p * len(list) / parts; i < (p+1)*len(list)/parts && err == nil; i++ {
				out[i], err = f(list[i])
			}
			return err
		})
	}
	return out, g.Wait()
}
