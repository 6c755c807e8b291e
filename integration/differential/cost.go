package differential

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// Cost is what the files of our driver take, in bytes of data blocks. Where
// files share extents, an extent counts once.
type Cost struct {
	All     int64 // every inode: objects, lanes, and files that only a tree has
	Unique  int64 // objects alone: each content with its metadata once
	Overlay int64 // what the overlay driver needs for the same layers
	Times   int64 // of All: lanes for other times of a content
	Doubles int64 // of All: further lanes, for equal files of one root
	Private int64 // of All: inodes that a tree does not share
	Links   int64 // not of All: lanes of symlinks whose targets need a block
	Excess  int64 // of All: lanes beyond what the root that needs most of them needs
	Least   int64 // what no store of hardlinks can go below: Unique, Private, and an inode for each time and each equal file
}

// Measure adds up the files below a driver's home. Chains are the layers of each
// image. The filesystem must be synced: extents that are not written yet have no
// place. Without reflinks, blocks are what stat says.
func Measure(home string, chains [][]string, reflinks bool) (Cost, error) {
	var c Cost
	all, unique := newExtentSet(reflinks), newExtentSet(reflinks)
	// Objects first, then lanes: what a lane or a layer shares is counted there.
	roots := []string{filepath.Join(home, "repo", "objects"), filepath.Join(home, "repo", "extensions"), filepath.Join(home, "layers")}
	err := walkEach(roots, func(path string, st *syscall.Stat_t) error {
		if strings.HasPrefix(path, filepath.Join(home, "repo", "objects")+"/") {
			if !strings.HasSuffix(path, ".file") {
				return nil // trees and commits: no file of an image
			}
			if err := unique.add(path, st); err != nil {
				return err
			}
		} else if !strings.Contains(path, "/lanes/") && !strings.Contains(path, "/tree/") {
			return nil // records and lists
		}
		before := all.sum
		err := all.add(path, st)
		switch added := all.sum - before; {
		case strings.HasPrefix(path, filepath.Join(home, "layers")+"/"):
			c.Private += added
		case strings.Contains(path, "/lanes/") && strings.HasSuffix(path, ".0"):
			c.Times += added
		case strings.Contains(path, "/lanes/"):
			c.Doubles += added
		}
		return err
	})
	if err != nil {
		return c, err
	}
	c.All, c.Unique = all.sum, unique.sum
	if c.Links, err = linkLanes(home, reflinks); err != nil {
		return c, err
	}
	needed, excess, err := needs(home, chains)
	if err != nil {
		return c, err
	}
	c.Excess, c.Least = excess, c.Unique+c.Private
	if !reflinks {
		c.Least += needed
	}
	layers, err := os.ReadDir(filepath.Join(home, "layers"))
	if err != nil {
		return c, err
	}
	for _, l := range layers {
		own := newExtentSet(reflinks)
		own.copies = true
		if err := walkFiles(filepath.Join(home, "layers", l.Name(), "tree"), own.add); err != nil {
			return c, err
		}
		c.Overlay += own.sum
	}
	return c, nil
}

// linkLanes adds up what lanes of symlinks take. Where there are reflinks, a target
// lies beside the inode.
func linkLanes(home string, reflinks bool) (sum int64, err error) {
	lanes := filepath.Join(home, "repo", "extensions", "ostree-storage", "lanes")
	err = filepath.WalkDir(lanes, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		taken := info.Sys().(*syscall.Stat_t).Blocks * 512
		if reflinks {
			taken = min(taken, info.Size())
		}
		sum += taken
		return nil
	})
	return sum, err
}

// lane is what lanes are told apart by, the number left out.
type lane struct {
	object string
	mtime  syscall.Timespec
}

// needs adds up, over all objects and times, the inodes that roots need besides
// the objects themselves, the root that has most equal files setting their
// number; and those that are used and would not be needed.
func needs(home string, chains [][]string) (needed, excess int64, err error) {
	objects := map[uint64]string{} // by inode
	err = walkFiles(filepath.Join(home, "repo"), func(path string, st *syscall.Stat_t) error {
		name, lane, _ := strings.Cut(filepath.Base(path), ".")
		if lane == "file" || strings.Contains(path, "/lanes/") {
			objects[st.Ino] = filepath.Base(filepath.Dir(path)) + name
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	used, most, size := map[lane]map[uint64]bool{}, map[lane]int{}, map[lane]int64{}
	for _, chain := range chains {
		root := map[lane]map[uint64]bool{}
		for _, id := range chain {
			err := walkFiles(filepath.Join(home, "layers", id, "tree"), func(_ string, st *syscall.Stat_t) error {
				object, ok := objects[st.Ino]
				if !ok {
					return nil // private
				}
				l := lane{object, st.Mtim}
				for _, m := range []map[lane]map[uint64]bool{used, root} {
					if m[l] == nil {
						m[l] = map[uint64]bool{}
					}
					m[l][st.Ino] = true
				}
				most[l], size[l] = max(most[l], len(root[l])), st.Blocks*512
				return nil
			})
			if err != nil {
				return 0, 0, err
			}
		}
	}
	first := map[string]bool{}
	for l, inodes := range used {
		excess += int64(len(inodes)-most[l]) * size[l]
		needed += int64(most[l]) * size[l]
		if !first[l.object] {
			first[l.object] = true
			needed -= size[l] // the object's own inode serves one time
		}
	}
	return needed, excess, nil
}

func walkEach(roots []string, f func(string, *syscall.Stat_t) error) error {
	for _, root := range roots {
		if err := walkFiles(root, f); err != nil {
			return err
		}
	}
	return nil
}

func walkFiles(root string, f func(string, *syscall.Stat_t) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return f(path, info.Sys().(*syscall.Stat_t))
	})
}

// extentSet adds up the space of inodes, each once, and of their extents.
type extentSet struct {
	inodes  map[uint64]bool
	extents map[[2]uint64]bool // physical place and length
	shared  bool               // extents may be shared; else stat knows
	copies  bool               // every inode counts in full
	sum     int64
}

func newExtentSet(shared bool) *extentSet {
	return &extentSet{inodes: map[uint64]bool{}, extents: map[[2]uint64]bool{}, shared: shared}
}

func (s *extentSet) add(path string, st *syscall.Stat_t) error {
	if s.inodes[st.Ino] || st.Size == 0 {
		return nil
	}
	s.inodes[st.Ino] = true
	if !s.shared {
		s.sum += st.Blocks * 512
		return nil
	}
	list, err := testfs.Extents(path)
	if err != nil {
		return fmt.Errorf("map %s: %w", path, err)
	}
	for _, e := range list {
		if e.Inline {
			e.Length = uint64(st.Size) // it lies beside the inode, and is not rounded up
		}
		key := [2]uint64{e.Physical, e.Length}
		if !s.copies && !e.Own && s.extents[key] {
			continue
		}
		s.extents[key] = true
		s.sum += int64(e.Length)
	}
	return nil
}
