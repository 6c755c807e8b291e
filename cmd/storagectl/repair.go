package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

type repairAnswer struct {
	DryRun  bool      `json:"dry_run"`
	Actions []action  `json:"actions"`
	Left    []finding `json:"left"`
	From    []string  `json:"from"`
}

type action struct {
	Kind string `json:"kind"`
	Home string `json:"home"`
	Path string `json:"path"`
	How  string `json:"how"`
}

func (a *app) repairCommand() *cobra.Command {
	var dry bool
	var from []string
	c := &cobra.Command{
		Use:   "repair",
		Short: "Replace what is damaged by good copies",
		Long: `Runs a check and puts right what it can: a damaged or missing object is replaced from wherever a good copy is (one of its lanes,
a tree that has it as an inode of its own, the pinned store, other stores, and what --from names), entries of trees are made again
from their objects, refs from records, records from refs, lists of inodes from trees, the index from the commits. Every copy is verified before it takes its
place. Nothing is deleted that is not replaced or proven worthless; what cannot be repaired is left as it is and named. The image store
and the pinned store are repaired as well, each from the others; other additional stores are not ours to write to.

--from is an OSTree repository, a graphroot or pinned store, a layer tar (also compressed), an OCI directory, or an image by
transport, as docker://registry/name:tag. Exits with 3 if it repaired everything, with 2 if damage is left.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.repair(dry, from) },
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would be done")
	c.Flags().StringArrayVar(&from, "from", nil, "where good copies are; may be repeated")
	return c
}

func (a *app) repair(dry bool, from []string) (err error) {
	root, exists, err := a.graphroot()
	if err != nil {
		return err
	}
	if !exists {
		return advise(fmt.Errorf("there is no store in %s", root), "storagectl pull IMAGE")
	}
	if _, err := a.catalogs(); err != nil {
		return err
	}
	sources, done, err := a.openSources(from)
	defer func() { err = errors.Join(err, done()) }()
	if err != nil {
		return err
	}
	cs, err := a.mendable()
	defer func() {
		for _, m := range cs {
			err = errors.Join(err, m.Close())
		}
	}()
	if err != nil {
		return err
	}
	v := &repairAnswer{DryRun: dry, Actions: []action{}, Left: []finding{}, From: append([]string{}, from...)}
	if err := a.mend(v, cs, sources); err != nil {
		return err
	}
	return a.answerRepair(v)
}

// A mendable is a home that is repaired, and its place among all homes.
type mendable struct {
	*layers.Catalog
	home int
}

// mendable opens the homes that are ours to write to: graphroot's, the image store's and the pinned store's. A pinned store that cannot be
// written to keeps its findings.
func (a *app) mendable() (out []mendable, err error) {
	for i, c := range a.homes {
		if !a.isOurs(i) {
			continue
		}
		m, err := a.writable(filepath.Dir(c.Home()))
		if err == nil && m.ReadOnly() && a.isPinned(i) {
			err = errors.Join(fs.ErrPermission, m.Close())
		}
		if err != nil && a.isPinned(i) {
			a.tell("the pinned store is left as it is: " + err.Error())
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, mendable{m, i})
	}
	return out, nil
}

// rounds is how often a repair checks again: a mended commit shows trees that are missing, and these files.
const rounds = 8

// mend checks and mends until nothing more can be done.
func (a *app) mend(v *repairAnswer, cs []mendable, sources []*store.Repo) error {
	for range rounds {
		list, err := a.findings(false, 0, 0)
		if err != nil {
			return err
		}
		v.Left = list
		before := len(v.Actions)
		for _, m := range cs { // objects of all first, since layers are mended from them
			if err := a.mendObjects(v, m, list, sources); err != nil {
				return err
			}
		}
		for _, m := range cs {
			if err := a.mendLayers(v, m, list); err != nil {
				return err
			}
		}
		if v.DryRun || len(v.Actions) == before {
			break
		}
	}
	if v.DryRun {
		v.Left = slices.DeleteFunc(v.Left, func(f finding) bool {
			return slices.ContainsFunc(v.Actions, func(x action) bool { return x.Path == f.Path && x.Home == f.Home })
		})
	}
	return nil
}

// mendOptions say where copies of an object may be: files of trees, other stores.
func (a *app) mendOptions(home int, dry bool, sources ...*store.Repo) store.MendOptions {
	o := store.MendOptions{DryRun: dry, Sources: sources}
	for i, c := range a.homes {
		if i != home {
			o.Sources = append(o.Sources, c.Repo())
		}
	}
	return o
}

func (a *app) mendObjects(v *repairAnswer, c mendable, list []finding, sources []*store.Repo) error {
	ctx := context.Background()
	counted := false
	for _, f := range list {
		if f.of == nil || f.home != c.home {
			continue
		}
		switch f.of.Kind {
		case store.Index:
			if counted {
				continue
			}
			counted = true
			if err := a.mendIndex(v, c, f); err != nil {
				return err
			}
		case store.Missing, store.Corrupt:
			o := a.mendOptions(c.home, v.DryRun, sources...)
			o.Files = a.treeCopies(f)
			from, err := c.Repo().Mend(ctx, f.of.Object, o)
			if errors.Is(err, store.ErrNoCopy) {
				continue
			}
			if err != nil {
				return err
			}
			if from != "" {
				v.Actions = append(v.Actions, action{f.Kind, f.Home, f.Path, "replaced from " + from})
			}
		case store.BadLane:
			if !v.DryRun {
				if err := c.Repo().DropDamagedLane(f.Path); err != nil {
					return err
				}
			}
			v.Actions = append(v.Actions, action{f.Kind, f.Home, f.Path, "the lane was dropped: its object is good or is mended by itself"})
		}
	}
	return nil
}

// mendIndex counts anew what commits have. What damaged commits have is not known until they are mended.
func (a *app) mendIndex(v *repairAnswer, c mendable, f finding) error {
	if !v.DryRun {
		var corrupt *store.CorruptError
		if err := store.Reindex(context.Background(), c.Repo()); errors.As(err, &corrupt) {
			return nil
		} else if err != nil {
			return err
		}
	}
	v.Actions = append(v.Actions, action{f.Kind, f.Home, f.Path, "made anew from the commits"})
	return nil
}

// treeCopies lists files of trees that may be a good copy of a damaged object.
func (a *app) treeCopies(f finding) []string {
	var out []string
	for _, c := range a.homes {
		for _, id := range f.Layers {
			l, err := c.Layer(id)
			if err != nil {
				continue
			}
			for _, p := range f.Files {
				out = append(out, filepath.Join(l.TreeDir(), p))
			}
		}
	}
	return out
}

func (a *app) mendLayers(v *repairAnswer, c mendable, list []finding) error {
	byID, err := layersOf(a.opened)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, f := range list {
		if f.home != c.home {
			continue
		}
		for _, id := range f.Layers {
			if seen[id] || !slices.Contains([]string{"record", "ref", "inodes", "tree", "segment", "ledger"}, f.Kind) || byID[id] == nil {
				continue
			}
			seen[id] = true
			done, err := c.Repair(context.Background(), id, layers.RepairOptions{DryRun: v.DryRun, Parent: byID[id].Parent, Homes: a.homes})
			for _, m := range done {
				path := "layers/" + id
				if m.Path != "" {
					path += "/tree/" + m.Path
				}
				v.Actions = append(v.Actions, action{string(m.Kind), c.Home(), path, m.How})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) answerRepair(v *repairAnswer) error {
	verb := "repaired"
	if v.DryRun {
		verb = "would repair"
	}
	var rows []string
	for _, x := range v.Actions {
		rows = append(rows, fmt.Sprintf("%s %s %s: %s", verb, x.Kind, printable(x.Path), x.How))
	}
	for _, f := range v.Left {
		rows = append(rows, append([]string{"left:"}, f.lines()...)...)
	}
	if len(rows) == 0 {
		rows = []string{"Nothing is wrong."}
	}
	if err := a.answer(v, "", rows); err != nil {
		return err
	}
	if len(v.Left) > 0 {
		return advise(codeError{exitDamage, fmt.Errorf("%s left", count(len(v.Left), "finding"))}, "%s", v.Left[0].Repair)
	}
	if len(v.Actions) > 0 && !v.DryRun {
		a.code = exitRepaired
	}
	return nil
}
