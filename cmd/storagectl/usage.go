package main

import (
	"context"

	"go.podman.io/storage"
	"golang.org/x/sync/errgroup"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// blockSize is what sizes of files are rounded up to where nothing is asked of the filesystem.
const blockSize = 4096

func blocks(size int64) int64 { return (size + blockSize - 1) &^ (blockSize - 1) }

// A usage says for every image and layer of all stores what its files take, from the commits' metadata: no file is looked at.
type usage struct {
	commits map[object.Checksum][]fileUse // the distinct file objects of each commit
	sizes   []int64                       // by object
	chains  map[string][]*layers.Layer    // by layer
}

// A fileUse is a file object, by its number.
type fileUse int32

// A share is what a set of layers takes: all of it, and what nothing else has.
type share struct{ Size, Unique int64 }

// usage reads the commits of all layers of the images.
func (a *app) usage(tops []string) (*usage, error) {
	u := &usage{commits: map[object.Checksum][]fileUse{}, chains: map[string][]*layers.Layer{}}
	work := map[object.Checksum]*layers.Layer{}
	known := map[string]*layers.Layer{}
	for _, top := range tops {
		if _, ok := u.chains[top]; ok || top == "" {
			continue
		}
		chain, err := a.chainAmong(top, known)
		if err != nil {
			return nil, err
		}
		u.chains[top] = chain
		for _, l := range chain {
			if l.Applied() {
				work[l.Commit] = l
			}
		}
	}
	return u, u.read(work)
}

// A sized is a file object and its size.
type sized struct {
	sum  object.Checksum
	size int64
}

func (u *usage) read(work map[object.Checksum]*layers.Layer) error {
	type result struct {
		commit object.Checksum
		files  []sized
	}
	g, ctx := errgroup.WithContext(context.Background())
	g.SetLimit(4)
	results := make(chan result, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		numbers := map[object.Checksum]fileUse{}
		for r := range results {
			uses := make([]fileUse, 0, len(r.files))
			for _, f := range r.files {
				n, ok := numbers[f.sum]
				if !ok {
					n = fileUse(len(u.sizes))
					numbers[f.sum] = n
					u.sizes = append(u.sizes, blocks(f.size))
				}
				uses = append(uses, n)
			}
			u.commits[r.commit] = uses
		}
	}()
	for commit, l := range work {
		g.Go(func() error {
			files, err := commitFiles(ctx, l)
			if err == nil {
				results <- result{commit, files}
			}
			return err
		})
	}
	err := g.Wait()
	close(results)
	<-done
	if err != nil {
		return advise(codeError{exitDamage, err}, "storagectl check")
	}
	return nil
}

// commitFiles lists the distinct regular files of a layer.
func commitFiles(ctx context.Context, l *layers.Layer) ([]sized, error) {
	var files []sized
	seen := make(map[object.Checksum]struct{}, l.Entries)
	err := l.Walk(ctx, func(e *layers.Entry) error {
		if e.Whiteout || !isRegular(e.Mode) {
			return nil
		}
		if _, ok := seen[e.Checksum]; !ok {
			seen[e.Checksum] = struct{}{}
			files = append(files, sized{e.Checksum, e.Size})
		}
		return nil
	})
	return files, err
}

// shares divides what is stored among owners, each a list of commits: what each has, and what it alone has.
func (u *usage) shares(owners [][]object.Checksum) []share {
	owned := make([]int32, len(u.sizes)) // how many owners an object has
	last := make([]int32, len(u.sizes))  // the last owner that was counted, from 1
	each := func(owner int, visit func(fileUse)) {
		for _, c := range owners[owner] {
			for _, n := range u.commits[c] {
				if last[n] != int32(owner+1) {
					last[n] = int32(owner + 1)
					visit(n)
				}
			}
		}
	}
	out := make([]share, len(owners))
	for i := range owners {
		each(i, func(n fileUse) { owned[n]++; out[i].Size += u.sizes[n] })
	}
	clear(last)
	for i := range owners {
		each(i, func(n fileUse) {
			if owned[n] == 1 {
				out[i].Unique += u.sizes[n]
			}
		})
	}
	return out
}

// common returns how many bytes any two owners have in common.
func (u *usage) common(owners [][]object.Checksum) [][]int64 {
	const most = 64 // the picture shows no more
	owners = owners[:min(len(owners), most)]
	masks := make([]uint64, len(u.sizes))
	for i, commits := range owners {
		for _, c := range commits {
			for _, n := range u.commits[c] {
				masks[n] |= 1 << i
			}
		}
	}
	byMask := map[uint64]int64{}
	for n, mask := range masks {
		byMask[mask] += u.sizes[n]
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

// commitsOf are the commits of a chain.
func (u *usage) commitsOf(top string) []object.Checksum {
	var out []object.Checksum
	for _, l := range u.chains[top] {
		if l.Applied() {
			out = append(out, l.Commit)
		}
	}
	return out
}

// layersOf indexes the layers of all stores by id.
func layersOf(s storage.Store) (map[string]*storage.Layer, error) {
	all, err := s.Layers()
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*storage.Layer, len(all))
	for i := range all {
		if old := byID[all[i].ID]; old == nil || old.ReadOnly {
			byID[all[i].ID] = &all[i]
		}
	}
	return byID, nil
}
