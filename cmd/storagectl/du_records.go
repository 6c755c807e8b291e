package main

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// records is what containers/storage keeps in a root of images and layers outside of the driver.
type records struct {
	root   string
	layers map[string]int64 // blocks by layer, of those that have some; nil if they were not read
	images map[string]int64
}

// read looks at the records of all layers that will be asked for. Their directory is listed, since most layers may have none.
func (r *records) read(ids []string) {
	entries, err := os.ReadDir(filepath.Join(r.root, driverName+"-layers"))
	if err != nil {
		return
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
	}
	sizes, _ := layers.EachOf(ids, func(id string) (int64, error) {
		var sum int64
		for _, name := range []string{id, id + tarSplit} {
			if there[name] {
				sum += diskBlocks(filepath.Join(r.root, driverName+"-layers", name))
			}
		}
		return sum, nil
	})
	r.layers = map[string]int64{}
	for i, id := range ids {
		if sizes[i] > 0 {
			r.layers[id] = sizes[i]
		}
	}
}

// tarSplit is what containers/storage adds to a layer's id for the name of the file with its tar headers.
const tarSplit = ".tar-split.gz"

// of sums up the records of images and layers.
func (r *records) of(set []*knownImage, ids []string) int64 {
	var sum int64
	if r.images == nil {
		r.images = map[string]int64{}
	}
	for _, k := range set {
		bytes, ok := r.images[k.ID]
		if !ok {
			bytes = diskBlocks(filepath.Join(r.root, driverName+"-images", k.ID))
			r.images[k.ID] = bytes
		}
		sum += bytes
	}
	for _, id := range ids {
		if r.layers != nil {
			sum += r.layers[id]
			continue
		}
		base := filepath.Join(r.root, driverName+"-layers", id)
		sum += diskBlocks(base) + diskBlocks(base+tarSplit)
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
