package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/pins"
	"github.com/ostree-storage/ostree-storage/store"
)

type gcAnswer struct {
	DryRun  bool     `json:"dry_run"`
	Layers  []string `json:"layers"`
	Pinned  []string `json:"pinned_layers"`
	Note    string   `json:"note,omitempty"`
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
dead processes left behind; in the pinned store, layers of no pin that no registered graphroot needs. No image, container, pin or
foreign ref loses anything. BYTES are the blocks of inodes that went.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.gc(dry) },
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would go")
	return c
}

func (a *app) gc(dry bool) error {
	v := gcAnswer{DryRun: dry, Layers: []string{}, Pinned: []string{}}
	root, exists, err := a.graphroot()
	if err != nil {
		return err
	}
	// First, since one process cannot have the pinned store open in two ways.
	if err := a.collectPinned(&v, root, exists); err != nil {
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
	rows := []string{fmt.Sprintf("%s %s, %s, %s: %s", removed, count(len(v.Layers), "layer"),
		count(int(v.Objects), "object"), count(int(v.Lanes), "lane"), size(v.Bytes))}
	if len(v.Pinned) > 0 {
		rows = append(rows, fmt.Sprintf("%s %s of the pinned store", removed, count(len(v.Pinned), "layer")))
	}
	if v.Note != "" {
		rows = append(rows, v.Note)
	}
	return a.answer(v, "", rows)
}

// collectPinned removes held layers that nothing needs any more. Where that may not be, the rest goes on, and says so.
func (a *app) collectPinned(v *gcAnswer, root string, exists bool) error {
	o, err := a.pinOptions()
	if err != nil || o.Path == "" {
		return err
	}
	err = a.openPins(o, false, func(s *pins.Store) error {
		a.withoutPins = true
		if v.DryRun {
			v.Pinned, err = s.Collectable()
		} else {
			var r *pins.Removed
			if r, err = s.Collect(false); r != nil {
				v.Pinned = r.Layers
			}
		}
		return errors.Join(err, v.prune(s.Repo(), filepath.Join(root, driverName, "repo"), exists))
	})
	switch {
	case errors.Is(err, pins.ErrNoStore):
		err = nil
	case errors.Is(err, pins.ErrRefused), errors.Is(err, pins.ErrReadOnly), errors.Is(err, pins.ErrBusy):
		v.Note, err = "The pinned store keeps what it has: "+err.Error(), nil
	}
	if v.Pinned == nil {
		v.Pinned = []string{}
	}
	return err
}

// prune removes what nothing in the pinned store's repository needs: lanes of checkouts with labels that are gone, say, and lanes that
// only the main store has besides, if there is one.
func (v *gcAnswer) prune(repo, main string, exists bool) error {
	c, err := writableHome(filepath.Dir(repo))
	if err != nil {
		return err
	}
	err = v.pruneHome(c)
	if err == nil && exists && v.DryRun {
		err = v.countCommon(c.Repo(), main)
	}
	return errors.Join(err, c.Close())
}

// pruneHome removes objects that no ref reaches and lanes that no layer uses.
func (v *gcAnswer) pruneHome(c *layers.Catalog) error {
	freed, err := c.Repo().Prune(context.Background(), v.DryRun)
	v.count(freed)
	if err == nil && !v.DryRun {
		freed, err = layers.DropUnusedLanes(context.Background(), c)
		v.count(freed)
	}
	return err
}

func (v *gcAnswer) countCommon(r *store.Repo, main string) error {
	other, err := store.Open(main)
	if err != nil {
		return err
	}
	freed, err := store.CommonLanes(context.Background(), r, other)
	v.count(freed)
	return errors.Join(err, other.Close())
}

func (a *app) collect(v *gcAnswer) (err error) {
	s, err := a.store()
	if err != nil {
		return err
	}
	c, err := a.writable(s.GraphRoot())
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
		v.Objects, v.Bytes = f[0].Objects, f[0].Sum()
	}
	if !v.DryRun {
		if err := s.GarbageCollect(); err != nil {
			return advise(fmt.Errorf("remove layers without a record: %w", err), "storagectl check")
		}
	}
	return advise(v.pruneHome(c), "storagectl check")
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
