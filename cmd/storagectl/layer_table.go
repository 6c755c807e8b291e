package main

import (
	"fmt"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/layers"
)

// A layerTable is containers/storage's list of the layers of all stores, each with a number. An id that two stores have is that of the
// store that can be written to.
type layerTable struct {
	list    []*storage.Layer
	parents []int32 // noLayer for a base layer, and where the list has no parent
	at      map[string]int32
}

const noLayer = -1

func newLayerTable(s storage.Store) (*layerTable, error) {
	all, err := s.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	t := &layerTable{list: make([]*storage.Layer, 0, len(all)), at: make(map[string]int32, len(all))}
	for i := range all {
		n, ok := t.at[all[i].ID]
		switch {
		case !ok:
			t.at[all[i].ID] = int32(len(t.list))
			t.list = append(t.list, &all[i])
		case t.list[n].ReadOnly:
			t.list[n] = &all[i]
		}
	}
	t.parents = make([]int32, len(t.list))
	for i, l := range t.list {
		t.parents[i] = t.find(l.Parent)
	}
	return t, nil
}

// find returns the number of a layer.
func (t *layerTable) find(id string) int32 {
	if n, ok := t.at[id]; ok {
		return n
	}
	return noLayer
}

// ids are the layers' own names.
func (t *layerTable) ids(numbers []int32) []string {
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = t.list[n].ID
	}
	return out
}

// chain lists a layer and its ancestors, nearest first.
func (t *layerTable) chain(top string) ([]int32, error) {
	var out []int32
	if top == "" {
		return nil, nil
	}
	for n := t.find(top); ; n = t.parents[n] {
		if n == noLayer || len(out) > len(t.list) {
			missing := top
			if len(out) > 0 {
				missing = t.list[out[len(out)-1]].Parent
			}
			return nil, advise(codeError{exitDamage, fmt.Errorf("layer %s: %w", missing, layers.ErrUnknown)}, "storagectl check")
		}
		out = append(out, n)
		if t.list[n].Parent == "" {
			return out, nil
		}
	}
}

// layersOf indexes the layers of all stores by id.
func layersOf(s storage.Store) (map[string]*storage.Layer, error) {
	t, err := newLayerTable(s)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*storage.Layer, len(t.list))
	for _, l := range t.list {
		byID[l.ID] = l
	}
	return byID, nil
}
