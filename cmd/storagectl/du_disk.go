package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A disk is what du knows of all stores.
type disk struct {
	store      storage.Store
	homes      layers.Catalogs
	own        int // how many of homes are ours
	images     []*knownImage
	layers     *layerTable
	containers []storage.Container
	usedBy     map[string][]string // containers' names by image
	needs      []int32             // by layer: how many layers, images and containers need it
	less       []int32             // what goes in one question; zero between two
	use        *usage
	frees      []freesAnswer // of the set that is asked for, then of each of its images
	unpins     []freesAnswer // the same
	pinned     string        // the pinned store, "" if it is not used
}

// newDisk finds out what there is. With all set, files are looked at while containers/storage reads its lists.
func (a *app) newDisk(all bool) (*disk, error) {
	d := &disk{usedBy: map[string][]string{}, own: 1}
	var err error
	if d.store, err = a.store(); err != nil {
		return nil, err
	}
	if d.store.ImageStore() != "" {
		d.own = 2
	}
	if d.homes, err = a.catalogs(); err != nil {
		return nil, err
	}
	if d.pinned, err = a.pinnedStore(); err != nil {
		return nil, err
	}
	var first *layers.Ledger
	var opened sync.WaitGroup
	if all {
		opened.Go(func() {
			first = layers.OpenLedger(d.homes[0], true)
			first.LookAhead()
		})
	}
	err = d.read(a)
	if opened.Wait(); err != nil {
		if first != nil {
			err = errors.Join(err, first.Wait())
		}
		return nil, err
	}
	var tops []string
	for _, k := range d.images {
		tops = append(tops, k.TopLayer)
	}
	d.use, err = a.usage(d.layers, tops, true, first)
	return d, err
}

// read takes the lists of containers/storage.
func (d *disk) read(a *app) (err error) {
	if d.images, err = a.images(); err != nil {
		return err
	}
	if d.layers, err = a.layerTable(); err != nil {
		return err
	}
	if d.containers, err = d.store.Containers(); err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range d.containers {
		d.usedBy[c.ImageID] = append(d.usedBy[c.ImageID], name(c.ID, c.Names))
	}
	d.need()
	return nil
}

func (d *disk) partsByLayer(v *duAnswer, set []*knownImage) error {
	v.Common = [][]int64{}
	wanted := map[int32]bool{}
	for _, k := range set {
		for _, n := range d.use.chains[k.TopLayer] {
			wanted[n] = true
		}
	}
	var all []int32
	for n := range int32(len(d.layers.list)) {
		if d.use.places[n].home > 0 {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(x, y int32) int { return strings.Compare(d.layers.list[x].ID, d.layers.list[y].ID) })
	owners := make([][]int32, len(all))
	for i, n := range all {
		owners[i] = []int32{n}
	}
	frees, err := d.freesByLayer(wanted)
	if err != nil {
		return err
	}
	shares := d.use.shares(owners)
	for i, n := range all {
		if !wanted[n] {
			continue
		}
		p := part{Name: d.layers.list[n].ID, Names: []string{}, Size: shares[i].Size, Shared: shares[i].Size - shares[i].Unique, Unique: shares[i].Unique, UsedBy: []string{}}
		if sum, ok := frees[n]; ok {
			p.Frees = &sum
		}
		v.Parts = append(v.Parts, p)
	}
	return nil
}

// freesByLayer is what removing each of the layers alone frees, of those that are ours.
func (d *disk) freesByLayer(wanted map[int32]bool) (map[int32]int64, error) {
	out := map[int32]int64{}
	for h := range d.own {
		var sets [][]int32
		var of []int32
		for n := range wanted {
			if int(d.use.places[n].home) == h+1 {
				sets, of = append(sets, []int32{n}), append(of, n)
			}
		}
		each, err := d.goes(h, d.placesIn(h, sets))
		if err != nil {
			return nil, err
		}
		for i, f := range each {
			out[of[i]] = f.Sum()
		}
	}
	return out, nil
}

// partsWithin divides what the images hold by the first directory of its path, or by its owner. A file object that has several
// places is counted where it comes first.
func (d *disk) partsWithin(v *duAnswer, set []*knownImage, by string) error {
	v.Common = [][]int64{}
	elsewhere := map[object.Checksum]bool{}
	for _, k := range d.images {
		if slices.ContainsFunc(set, func(o *knownImage) bool { return o.ID == k.ID }) {
			continue
		}
		for _, n := range d.use.chains[k.TopLayer] {
			d.use.checksums(n, func(sum object.Checksum) { elsewhere[sum] = true })
		}
	}
	parts := map[string]*part{}
	seen := map[object.Checksum]bool{}
	for _, k := range set {
		for _, n := range d.use.chains[k.TopLayer] {
			l, err := d.use.catalog(n).Layer(d.layers.list[n].ID)
			if err != nil {
				return err
			}
			if !l.Applied() {
				continue
			}
			err = l.Walk(context.Background(), func(e *layers.Entry) error {
				if e.Whiteout || !isRegular(e.Mode) || seen[e.Checksum] {
					return nil
				}
				seen[e.Checksum] = true
				at, err := partOf(e, l, by)
				if err != nil {
					return err
				}
				p := parts[at]
				if p == nil {
					p = &part{Name: at, Names: []string{}, UsedBy: []string{}}
					parts[at] = p
				}
				p.Size += blocks(e.Size)
				if elsewhere[e.Checksum] {
					p.Shared += blocks(e.Size)
				} else {
					p.Unique += blocks(e.Size)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	for _, p := range parts {
		v.Parts = append(v.Parts, *p)
	}
	slices.SortFunc(v.Parts, func(x, y part) int {
		if x.Size != y.Size {
			return int(min(max(y.Size-x.Size, -1), 1))
		}
		return strings.Compare(x.Name, y.Name)
	})
	return nil
}

func partOf(e *layers.Entry, l *layers.Layer, by string) (string, error) {
	if by == "directory" {
		top, _, inside := strings.Cut(e.Path, "/")
		if !inside {
			return "/", nil
		}
		return "/" + top, nil
	}
	if err := e.Load(l.Catalog().Repo()); err != nil {
		return "", err
	}
	return strconv.Itoa(int(e.UID)) + ":" + strconv.Itoa(int(e.GID)), nil
}

func isRegular(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFREG }
