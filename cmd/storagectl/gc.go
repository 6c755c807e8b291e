package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

type gcAnswer struct {
	DryRun  bool     `json:"dry_run"`
	Layers  []string `json:"layers"`
	Objects int64    `json:"objects"`
	Lanes   int64    `json:"lanes"`
	Bytes   int64    `json:"bytes"`
}

func (a *app) gcCommand() *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what nothing needs",
		Long: `Removes layers that no record of containers/storage names, objects that no ref reaches, lanes that no tree uses, and what
dead processes left behind, in the pinned store as well. No image, container or foreign ref loses anything. BYTES are the blocks of inodes that went.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.gc(dry) },
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would go")
	return c
}

func (a *app) gc(dry bool) error {
	v := gcAnswer{DryRun: dry, Layers: []string{}}
	_, exists, err := a.graphroot()
	if err != nil {
		return err
	}
	if exists {
		if err := a.collect(&v); err != nil {
			return err
		}
	}
	removed := "Removed"
	if dry {
		removed = "Would remove"
	}
	return a.answer(v, "", []string{fmt.Sprintf("%s %s, %s, %s: %s", removed, count(len(v.Layers), "layer"),
		count(int(v.Objects), "object"), count(int(v.Lanes), "lane"), size(v.Bytes))})
}

func (a *app) collect(v *gcAnswer) (err error) {
	s, err := a.store()
	if err != nil {
		return err
	}
	c, err := a.writable()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if v.Layers, err = a.unknownLayers(c); err != nil {
		return err
	}
	ctx := context.Background()
	if v.DryRun && len(v.Layers) > 0 {
		f, err := c.Frees(ctx, v.Layers)
		if err != nil {
			return advise(err, "storagectl check")
		}
		v.Objects, v.Bytes = f.Objects, f.Sum()
	}
	if !v.DryRun {
		if err := s.GarbageCollect(); err != nil {
			return advise(fmt.Errorf("remove layers without a record: %w", err), "storagectl check")
		}
	}
	freed, err := c.Repo().Prune(ctx, v.DryRun)
	if err != nil {
		return advise(err, "storagectl check")
	}
	v.count(freed)
	pinned := pinnedStore(s)
	homes, err := a.catalogs()
	if err != nil || pinned == "" {
		return err
	}
	for _, home := range homes {
		if home.Home() != filepath.Join(pinned, driverName) || home.Repo().ReadOnly() {
			continue
		}
		freed, err := home.Repo().Prune(ctx, v.DryRun) // lanes of checkouts with labels that are gone, say
		if err != nil {
			return advise(err, "storagectl pin doctor")
		}
		v.count(freed)
	}
	return nil
}

func (v *gcAnswer) count(f store.Freed) {
	v.Objects += f.Objects
	v.Lanes += f.Lanes
	v.Bytes += f.Bytes
}

// unknownLayers are the driver's layers that no record names.
func (a *app) unknownLayers(c *layers.Catalog) ([]string, error) {
	ids, err := c.IDs()
	if err != nil {
		return nil, fmt.Errorf("list the driver's layers: %w", err)
	}
	byID, err := layersOf(a.opened)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	out := []string{}
	for _, id := range ids {
		if l := byID[id]; l == nil || l.ReadOnly {
			out = append(out, id)
		}
	}
	return out, nil
}
