package main

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/pins"
	"github.com/ostree-storage/ostree-storage/store"
)

// free finds out what goes with a set as a whole and, if that is how it is divided, with each image alone.
func (d *disk) free(set []*knownImage, by string) (err error) {
	sets := [][]*knownImage{set}
	if by == "image" {
		for _, k := range set {
			sets = append(sets, []*knownImage{k})
		}
	}
	if d.frees, err = d.freesOf(sets); err == nil {
		d.unpins, err = d.unpinsOf(sets)
	}
	return err
}

// freesOf is what removing the images of each set together frees.
func (d *disk) freesOf(sets [][]*knownImage) ([]freesAnswer, error) {
	root := d.store.GraphRoot()
	if d.own == 2 {
		root = d.store.ImageStore()
	}
	out := make([]freesAnswer, len(sets))
	byHome := make([][][]string, d.own)
	for i := range byHome {
		byHome[i] = make([][]string, len(sets))
	}
	for n, set := range sets {
		free := slices.DeleteFunc(slices.Clone(set), func(k *knownImage) bool { return !k.Own || len(d.usedBy[k.ID]) > 0 })
		ids := d.goingLayers(free)
		for _, id := range ids {
			for i, c := range d.homes[:d.own] {
				if c.Exists(id) {
					byHome[i][n] = append(byHome[i][n], id)
				}
			}
		}
		out[n].add(records(root, free, ids))
	}
	for i, ids := range byHome {
		if err := sum(out, d.homes[i], ids); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// unpinsOf is what ending all pins of the images of each set frees.
func (d *disk) unpinsOf(sets [][]*knownImage) ([]freesAnswer, error) {
	out := make([]freesAnswer, len(sets))
	at := slices.IndexFunc(d.homes, func(c *layers.Catalog) bool { return c.Home() == filepath.Join(d.pinned, driverName) })
	if at < 0 || !slices.ContainsFunc(d.images, func(k *knownImage) bool { return k.Pinned }) {
		return out, nil
	}
	pinned, images := make([][]*knownImage, len(sets)), make([][]string, len(sets))
	for n, set := range sets {
		for _, k := range set {
			if k.Pinned {
				pinned[n], images[n] = append(pinned[n], k), append(images[n], k.ID)
			}
		}
	}
	ids, err := pins.Going(d.pinned, images...)
	if err != nil {
		return nil, advise(err, "storagectl pin doctor")
	}
	for n := range sets {
		out[n].add(records(d.pinned, pinned[n], ids[n]))
	}
	return out, sum(out, d.homes[at], ids)
}

// sum adds what removing each set of layers from a home frees, without records.
func sum(out []freesAnswer, home *layers.Catalog, sets [][]string) error {
	each, err := home.Frees(context.Background(), sets...)
	if err != nil {
		return advise(err, "storagectl check")
	}
	for n := range out {
		out[n].Layers += len(sets[n])
		out[n].sum(each[n])
	}
	return nil
}

func (v *freesAnswer) sum(f store.Frees) {
	v.Data += f.Data
	v.Lanes += f.Lanes
	v.Private += f.Private
	v.Metadata += f.Metadata
	v.Objects += f.Objects
	v.Total += f.Sum()
}

func (v *freesAnswer) add(records int64) {
	v.Records += records
	v.Total += records
}

// need counts who needs each layer: layers upon it, images of our own store, containers.
func (d *disk) need() {
	d.needs = map[string]int{}
	for _, l := range d.layers {
		d.needs[l.Parent]++
	}
	for _, k := range d.images {
		if k.Own {
			d.needs[k.TopLayer]++
			for _, id := range k.MappedTopLayers {
				d.needs[id]++
			}
		}
	}
	for _, c := range d.containers {
		d.needs[c.LayerID]++
	}
}

// goingLayers are the layers that containers/storage removes with the images: those of our own store that nothing else needs.
func (d *disk) goingLayers(set []*knownImage) []string {
	var going []string
	less := map[string]int{}
	for _, k := range set {
		for _, top := range append([]string{k.TopLayer}, k.MappedTopLayers...) {
			for id := top; id != "" && d.layers[id] != nil; id = d.layers[id].Parent {
				if less[id]++; less[id] < d.needs[id] {
					break
				}
				if !d.layers[id].ReadOnly {
					going = append(going, id)
				}
			}
		}
	}
	return going
}
