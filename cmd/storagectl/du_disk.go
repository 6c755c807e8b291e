package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A disk is what du knows of all stores.
type disk struct {
	store      storage.Store
	homes      layers.Catalogs
	own        int // how many of homes are ours
	images     []*knownImage
	layers     map[string]*storage.Layer
	containers []storage.Container
	usedBy     map[string][]string // containers' names by image
	needs      map[string]int      // by layer: how many layers, images and containers need it
	use        *usage
	frees      []freesAnswer // of the set that is asked for, then of each of its images
	unpins     []freesAnswer // the same
	pinned     string        // the pinned store, "" if it is not used
}

func (a *app) newDisk() (*disk, error) {
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
	if d.images, err = a.images(); err != nil {
		return nil, err
	}
	if d.layers, err = layersOf(d.store); err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	if d.containers, err = d.store.Containers(); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range d.containers {
		d.usedBy[c.ImageID] = append(d.usedBy[c.ImageID], name(c.ID, c.Names))
	}
	d.need()
	var tops []string
	for _, k := range d.images {
		tops = append(tops, k.TopLayer)
	}
	d.use, err = a.usage(tops)
	return d, err
}

// records is what containers/storage keeps in a root of images and layers outside of the driver.
func records(root string, set []*knownImage, ids []string) int64 {
	var sum int64
	for _, k := range set {
		sum += diskBlocks(filepath.Join(root, driverName+"-images", k.ID))
	}
	for _, id := range ids {
		base := filepath.Join(root, driverName+"-layers", id)
		sum += diskBlocks(base) + diskBlocks(base+".tar-split.gz")
	}
	return sum
}

// diskBlocks sums the blocks of all that is at a path.
func diskBlocks(path string) int64 {
	var sum int64
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return st.Blocks * 512
	}
	_ = filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(p, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

func (d *disk) partsByLayer(v *duAnswer, set []*knownImage) error {
	v.Common = [][]int64{}
	ids := map[string]bool{}
	for _, k := range set {
		for _, l := range d.use.chains[k.TopLayer] {
			ids[l.ID] = true
		}
	}
	byID := map[string]*layers.Layer{}
	for _, chain := range d.use.chains {
		for _, l := range chain {
			byID[l.ID] = l
		}
	}
	all := slices.Sorted(maps.Keys(byID))
	owners := make([][]object.Checksum, len(all))
	for i, id := range all {
		if byID[id].Applied() {
			owners[i] = []object.Checksum{byID[id].Commit}
		}
	}
	frees, err := d.freesByLayer(byID, ids)
	if err != nil {
		return err
	}
	shares := d.use.shares(owners)
	for i, id := range all {
		if !ids[id] {
			continue
		}
		p := part{Name: id, Names: []string{}, Size: shares[i].Size, Shared: shares[i].Size - shares[i].Unique, Unique: shares[i].Unique, UsedBy: []string{}}
		if f, ok := frees[id]; ok {
			sum := f.Sum()
			p.Frees = &sum
		}
		v.Parts = append(v.Parts, p)
	}
	return nil
}

// freesByLayer is what removing each of the layers alone frees, of those that are ours.
func (d *disk) freesByLayer(byID map[string]*layers.Layer, wanted map[string]bool) (map[string]store.Frees, error) {
	out := map[string]store.Frees{}
	for _, home := range d.homes[:d.own] {
		var sets [][]string
		for id := range wanted {
			if byID[id].Catalog() == home {
				sets = append(sets, []string{id})
			}
		}
		each, err := home.Frees(context.Background(), sets...)
		if err != nil {
			return nil, err
		}
		for i, f := range each {
			out[sets[i][0]] = f
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
		for _, l := range d.use.chains[k.TopLayer] {
			files, err := commitFiles(context.Background(), l)
			if err != nil {
				return err
			}
			for _, f := range files {
				elsewhere[f.sum] = true
			}
		}
	}
	parts := map[string]*part{}
	seen := map[object.Checksum]bool{}
	for _, k := range set {
		for _, l := range d.use.chains[k.TopLayer] {
			err := l.Walk(context.Background(), func(e *layers.Entry) error {
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
