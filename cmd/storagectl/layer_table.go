package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/pins"
)

// A layerTable is the list of the layers of all stores, each with a number. An id that two stores have is that of the store that can be
// written to.
type layerTable struct {
	list    []listedLayer
	parents []int32 // noLayer for a base layer, and where the list has no parent
	at      map[string]int32
}

type listedLayer struct {
	pins.LayerRecord
	ReadOnly bool
}

const noLayer = -1

func (a *app) layerTable() (*layerTable, error) {
	all, err := a.layerRecords()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	t := &layerTable{list: make([]listedLayer, 0, len(all)), at: make(map[string]int32, len(all))}
	for _, l := range all {
		n, ok := t.at[l.ID]
		switch {
		case !ok:
			t.at[l.ID] = int32(len(t.list))
			t.list = append(t.list, l)
		case t.list[n].ReadOnly:
			t.list[n] = l
		}
	}
	t.parents = make([]int32, len(t.list))
	for i := range t.list {
		if parent := t.list[i].Parent; i > 0 && parent == t.list[i-1].ID { // as nearly always
			t.parents[i] = int32(i - 1)
		} else {
			t.parents[i] = t.find(parent)
		}
	}
	return t, nil
}

// layerRecords lists the layers of all stores. Where there are only lists that are whole and plain they are read here; with all that may have
// to be mended, and all that is rare, containers/storage reads them, which takes ten times as long.
func (a *app) layerRecords() ([]listedLayer, error) {
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	d, err := s.GraphDriver()
	if err != nil {
		return nil, err
	}
	var all []listedLayer
	plain := s.ImageStore() == "" && !s.TransientStore()
	for i, root := range append([]string{s.GraphRoot()}, d.AdditionalImageStores()...) {
		if !plain {
			break
		}
		var records []pins.LayerRecord
		if records, plain, err = pins.LayerRecords(filepath.Join(root, driverName+"-layers")); err != nil {
			plain = false // containers/storage says what it thinks of it
		}
		all = slices.Grow(all, len(records))
		for _, l := range records {
			all = append(all, listedLayer{l, i > 0})
		}
	}
	if plain {
		a.looked = true
		return all, nil
	}
	list, err := s.Layers()
	if err != nil {
		return nil, err
	}
	all = make([]listedLayer, 0, len(list))
	for _, l := range list {
		all = append(all, listedLayer{pins.LayerRecord{ID: l.ID, Parent: l.Parent, DiffID: l.UncompressedDigest.String()}, l.ReadOnly})
	}
	return all, nil
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

// layersOf indexes the layers of all stores by id, as containers/storage has them.
func layersOf(s storage.Store) (map[string]*storage.Layer, error) {
	all, err := s.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	byID := make(map[string]*storage.Layer, len(all))
	for i := range all {
		if l := byID[all[i].ID]; l == nil || l.ReadOnly {
			byID[all[i].ID] = &all[i]
		}
	}
	return byID, nil
}
