package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// blockSize is what sizes of files are rounded up to where nothing is asked of the filesystem.
const blockSize = 4096

// blocks rounds a size up, and leaves a negative one, of what is no regular file, at -1.
func blocks(size int64) int64 {
	if size < 0 {
		return -1
	}
	return (size + blockSize - 1) &^ (blockSize - 1)
}

// A usage says for images and layers of all stores what their files take, from the commits' metadata. File objects have numbers.
type usage struct {
	app     *app
	table   *layerTable
	ledgers []*layers.Ledger
	places  []place   // by layer
	numbers [][]int32 // by home: the numbers of its ledger's objects, nil if they are the same
	sizes   []int64   // by object, in blocks; -1 for what is no regular file
	chains  map[string][]int32
}

// A place is where a layer's account is.
type place struct {
	home int8 // from 1; 0 is not asked for
	at   int32
}

// A share is what a set of layers takes: all of it, and what nothing else has.
type share struct{ Size, Unique int64 }

// usage finds out what the commits of all layers of the images hold. With keep that is written down for the next time. The ledger of
// the first home may be open already.
func (a *app) usage(t *layerTable, tops []string, keep bool, first *layers.Ledger) (*usage, error) {
	u := &usage{app: a, table: t, places: make([]place, len(t.list)), chains: map[string][]int32{}}
	asked := make([]bool, len(t.list))
	var rest []int32
	for _, top := range tops {
		if _, ok := u.chains[top]; ok {
			continue
		}
		chain, err := t.chain(top)
		if err != nil {
			return nil, err
		}
		u.chains[top] = chain
		for _, n := range chain {
			if !asked[n] {
				asked[n] = true
				rest = append(rest, n)
			}
		}
	}
	homes, err := a.catalogs()
	if err != nil {
		return nil, err
	}
	u.ledgers = make([]*layers.Ledger, len(homes))
	u.ledgers[0] = first
	for h := 0; h < len(homes) && len(rest) > 0; h++ {
		if rest, err = u.look(h, rest, keep && a.isOurs(h)); err != nil {
			return nil, advise(codeError{exitDamage, err}, "storagectl check")
		}
	}
	if len(rest) > 0 {
		return nil, advise(codeError{exitDamage, fmt.Errorf("layer %s: %w", t.list[rest[0]].ID, layers.ErrUnknown)}, "storagectl check")
	}
	u.number()
	return u, nil
}

// ledger opens the ledger of a home. What others provide is not believed, and cannot be kept.
func (u *usage) ledger(home int) *layers.Ledger {
	if u.ledgers[home] == nil {
		u.ledgers[home] = layers.OpenLedger(u.app.homes[home], u.app.isOurs(home))
	}
	return u.ledgers[home]
}

// look looks for layers in a home, and returns those that it does not have.
func (u *usage) look(home int, asked []int32, keep bool) (rest []int32, err error) {
	ids := u.table.ids(asked)
	l := u.ledger(home)
	err = l.LookAtCommits(context.Background(), ids, keep)
	for i, n := range asked {
		if at, recorded := l.At(ids[i]); recorded {
			u.places[n] = place{int8(home + 1), at}
		} else {
			rest = append(rest, n)
		}
	}
	return rest, err
}

// number gives the file objects of all homes their numbers.
func (u *usage) number() {
	u.numbers = make([][]int32, len(u.ledgers))
	bySum := map[object.Checksum]int32{}
	several := len(u.ledgers)-slices.IndexFunc(u.ledgers, func(l *layers.Ledger) bool { return l != nil }) > 1
	for h, l := range u.ledgers {
		if l == nil {
			continue
		}
		u.sizes = slices.Grow(u.sizes, l.Objects())
		for i := range int32(l.Objects()) {
			sum, size := l.File(i)
			if !several {
				u.sizes = append(u.sizes, blocks(size))
				continue
			}
			n, ok := bySum[sum]
			if !ok {
				n = int32(len(u.sizes))
				u.sizes = append(u.sizes, -1)
				bySum[sum] = n
			}
			u.sizes[n] = max(u.sizes[n], blocks(size))
			u.numbers[h] = append(u.numbers[h], n)
		}
	}
}

// files visits the distinct regular files of a layer.
func (u *usage) files(layer int32, visit func(number int32)) {
	p := u.places[layer]
	numbers := u.numbers[p.home-1]
	for _, use := range u.ledgers[p.home-1].Uses(p.at) {
		n := use.Object
		if numbers != nil {
			n = numbers[n]
		}
		if u.sizes[n] >= 0 {
			visit(n)
		}
	}
}

// checksums visits the distinct regular files of a layer, by their checksums.
func (u *usage) checksums(layer int32, visit func(object.Checksum)) {
	p := u.places[layer]
	l := u.ledgers[p.home-1]
	for _, use := range l.Uses(p.at) {
		if sum, size := l.File(use.Object); size >= 0 {
			visit(sum)
		}
	}
}

// catalog is the one that has a layer.
func (u *usage) catalog(layer int32) *layers.Catalog { return u.app.homes[u.places[layer].home-1] }

// shares divides what is stored among owners, each a list of layers: what each has, and what it alone has.
func (u *usage) shares(owners [][]int32) []share {
	owned := make([]int32, len(u.sizes)) // how many owners an object has
	last := make([]int32, len(u.sizes))  // the last owner that was counted, from 1
	each := func(owner int, visit func(int32)) {
		for _, l := range owners[owner] {
			u.files(l, func(n int32) {
				if last[n] != int32(owner+1) {
					last[n] = int32(owner + 1)
					visit(n)
				}
			})
		}
	}
	out := make([]share, len(owners))
	for i := range owners {
		each(i, func(n int32) { owned[n]++; out[i].Size += u.sizes[n] })
	}
	clear(last)
	for i := range owners {
		each(i, func(n int32) {
			if owned[n] == 1 {
				out[i].Unique += u.sizes[n]
			}
		})
	}
	return out
}

// common returns how many bytes any two owners have in common.
func (u *usage) common(owners [][]int32) [][]int64 {
	const most = 64 // the picture shows no more
	owners = owners[:min(len(owners), most)]
	masks := make([]uint64, len(u.sizes))
	for i, list := range owners {
		for _, l := range list {
			u.files(l, func(n int32) { masks[n] |= 1 << i })
		}
	}
	byMask := map[uint64]int64{}
	for n, mask := range masks {
		if mask != 0 {
			byMask[mask] += u.sizes[n]
		}
	}
	out := make([][]int64, len(owners))
	for i := range owners {
		out[i] = make([]int64, len(owners))
		for j := range owners {
			both := uint64(1)<<i | uint64(1)<<j
			for mask, bytes := range byMask {
				if mask&both == both {
					out[i][j] += bytes
				}
			}
		}
	}
	return out
}

// save writes the ledgers of our own homes; all says that everything was asked for. A ledger saves time: that it cannot be
// written stops nobody.
func (u *usage) save(all bool) {
	for h, l := range u.ledgers {
		if l == nil || !u.app.isOurs(h) {
			continue
		}
		if err := l.Save(all && h == 0); err != nil {
			u.app.say("%v", err)
		}
	}
}
