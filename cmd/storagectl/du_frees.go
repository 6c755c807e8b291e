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
	kept := records{root: root}
	out := make([]freesAnswer, len(sets))
	going := make([][]int32, len(sets))
	for n, set := range sets {
		free := slices.DeleteFunc(slices.Clone(set), func(k *knownImage) bool { return !k.Own || len(d.usedBy[k.ID]) > 0 })
		going[n] = d.goingLayers(free)
		ids := d.layers.ids(going[n])
		if n == 0 { // which has all that the others have
			kept.read(ids)
		}
		out[n].add(kept.of(free, ids))
	}
	if err := d.place(going); err != nil {
		return nil, err
	}
	for home := range d.own {
		if err := d.sum(out, home, d.placesIn(home, going)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// place finds the layers that no image has as its top, those of other mappings.
func (d *disk) place(sets [][]int32) error {
	var rest []int32
	for _, set := range sets {
		for _, n := range set {
			if d.use.places[n].home == 0 {
				rest = append(rest, n)
			}
		}
	}
	for h := 0; h < d.own && len(rest) > 0; h++ {
		var err error
		if rest, err = d.use.look(h, rest, true); err != nil {
			return advise(err, "storagectl check")
		}
	}
	return nil
}

// placesIn are the places of the layers that a home has.
func (d *disk) placesIn(home int, sets [][]int32) [][]int32 {
	out := make([][]int32, len(sets))
	for i, set := range sets {
		for _, n := range set {
			if p := d.use.places[n]; int(p.home) == home+1 {
				out[i] = append(out[i], p.at)
			}
		}
	}
	return out
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
	kept := records{root: d.pinned}
	places := make([][]int32, len(sets))
	l := d.use.ledger(at)
	for n := range sets {
		out[n].add(kept.of(pinned[n], ids[n]))
		if err := l.LookAtCommits(context.Background(), ids[n], true); err != nil {
			return nil, advise(err, "storagectl check")
		}
		for _, id := range ids[n] {
			if p, recorded := l.At(id); recorded {
				places[n] = append(places[n], p)
			}
		}
	}
	return out, d.sum(out, at, places)
}

// goes says what removing each set of layers from a home frees, without records.
func (d *disk) goes(home int, sets [][]int32) ([]store.Frees, error) {
	each, err := d.use.ledger(home).Frees(context.Background(), sets...)
	return each, advise(err, "storagectl check")
}

// sum adds what removing each set of layers from a home frees, without records.
func (d *disk) sum(out []freesAnswer, home int, sets [][]int32) error {
	each, err := d.goes(home, sets)
	if err != nil {
		return err
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
	d.needs, d.less = make([]int32, len(d.layers.list)), make([]int32, len(d.layers.list))
	needed := func(n int32) {
		if n != noLayer {
			d.needs[n]++
		}
	}
	for _, n := range d.layers.parents {
		needed(n)
	}
	for _, k := range d.images {
		if k.Own {
			needed(d.layers.find(k.TopLayer))
			for _, id := range k.MappedTopLayers {
				needed(d.layers.find(id))
			}
		}
	}
	for _, c := range d.containers {
		needed(d.layers.find(c.LayerID))
	}
}

// goingLayers are the layers that containers/storage removes with the images: those of our own store that nothing else needs.
func (d *disk) goingLayers(set []*knownImage) []int32 {
	var going, met []int32
	for _, k := range set {
		for _, top := range append([]string{k.TopLayer}, k.MappedTopLayers...) {
			for n := d.layers.find(top); n != noLayer; n = d.layers.parents[n] {
				met = append(met, n)
				if d.less[n]++; d.less[n] < d.needs[n] {
					break
				}
				if !d.layers.list[n].ReadOnly {
					going = append(going, n)
				}
			}
		}
	}
	for _, n := range met {
		d.less[n] = 0
	}
	return going
}
