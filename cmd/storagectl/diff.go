package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

type changeAnswer struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
	Old  int64  `json:"old_bytes"`
	New  int64  `json:"new_bytes"`
	What string `json:"what,omitempty"`
}

type diffAnswer struct {
	A            string         `json:"a"`
	B            string         `json:"b"`
	Added        int            `json:"added"`
	Changed      int            `json:"changed"`
	Removed      int            `json:"removed"`
	AddedBytes   int64          `json:"added_bytes"`
	ChangedBytes int64          `json:"changed_bytes"`
	RemovedBytes int64          `json:"removed_bytes"`
	Fetch        int64          `json:"new_data_bytes"`
	Changes      []changeAnswer `json:"changes"`
}

func (a *app) diffCommand() *cobra.Command {
	var layer, stat bool
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what differs between two images or two layers",
		Long: `Lists what B adds (A), changes (C) and removes (D) compared with A, with the bytes of regular files before and after. WHAT says
what changed: content, mode, owner, time, xattrs, target, type. "New data" are the bytes of the distinct file objects of B that A
does not have: what a pull of B onto a store with A has to bring.
It compares the merged trees of the commits, and looks at no file.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return a.diff(args[0], args[1], layer, stat) },
	}
	c.Flags().BoolVar(&layer, "layer", false, "A and B are layers, each taken alone")
	c.Flags().BoolVar(&stat, "stat", false, "only the sums")
	return c
}

func (a *app) diff(x, y string, layer, stat bool) error {
	from, err := a.tree(x, layer)
	if err != nil {
		return err
	}
	to, err := a.tree(y, layer)
	if err != nil {
		return err
	}
	v := &diffAnswer{A: x, B: y, Changes: []changeAnswer{}}
	if from[0].ID != to[0].ID {
		if err := v.compare(from, to, layer); err != nil {
			return err
		}
	}
	var rows []string
	if stat {
		v.Changes = []changeAnswer{}
	}
	for _, c := range v.Changes {
		rows = append(rows, row(c.Kind, printable(c.Path), fmt.Sprint(c.Old), fmt.Sprint(c.New), c.What))
	}
	heading := row("", "PATH", "OLD BYTES", "NEW BYTES", "WHAT")
	if len(rows) == 0 {
		heading = ""
	}
	if err := a.answer(v, heading, rows); err != nil {
		return err
	}
	a.say("%d added (%s), %d changed (%s), %d removed (%s); new data %s", v.Added, size(v.AddedBytes), v.Changed, size(v.ChangedBytes),
		v.Removed, size(v.RemovedBytes), size(v.Fetch))
	return nil
}

// list reads a tree, sorted by path as its walk is: parents before children.
func list(ctx context.Context, chain []*layers.Layer, alone bool) ([]*file, error) {
	files := make([]*file, 0, 1<<14)
	err := eachFile(ctx, chain, alone, func(f *file) error {
		files = append(files, f)
		return nil
	})
	slices.SortFunc(files, func(x, y *file) int { return strings.Compare(x.Path, y.Path) })
	return files, err
}

func (v *diffAnswer) compare(from, to []*layers.Layer, alone bool) error {
	g, ctx := errgroup.WithContext(context.Background())
	var old, now []*file
	var err error
	g.Go(func() (err error) { old, err = list(ctx, from, alone); return err })
	g.Go(func() (err error) { now, err = list(ctx, to, alone); return err })
	if err = g.Wait(); err != nil {
		return err
	}
	had := make(map[object.Checksum]struct{}, len(old))
	for _, f := range old {
		if isRegular(f.Mode) {
			had[f.Checksum] = struct{}{}
		}
	}
	for _, f := range now {
		if _, ok := had[f.Checksum]; !ok && isRegular(f.Mode) {
			had[f.Checksum] = struct{}{}
			v.Fetch += f.Size
		}
	}
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].Path < now[0].Path:
			v.add("D", old[0], nil, "")
			old = old[1:]
		case len(old) == 0 || now[0].Path < old[0].Path:
			v.add("A", nil, now[0], "")
			now = now[1:]
		default:
			what, err := differs(old[0], now[0])
			if err != nil {
				return err
			}
			if what != "" {
				v.add("C", old[0], now[0], what)
			}
			old, now = old[1:], now[1:]
		}
	}
	return nil
}

func (v *diffAnswer) add(kind string, old, now *file, what string) {
	c := changeAnswer{Kind: kind, What: what}
	if old != nil {
		c.Path = "/" + old.Path
		if isRegular(old.Mode) {
			c.Old = old.Size
		}
	}
	if now != nil {
		c.Path = "/" + now.Path
		if isRegular(now.Mode) {
			c.New = now.Size
		}
	}
	switch kind {
	case "A":
		v.Added++
		v.AddedBytes += c.New
	case "D":
		v.Removed++
		v.RemovedBytes += c.Old
	default:
		v.Changed++
		v.ChangedBytes += c.New
	}
	if c.Path == "/." {
		c.Path = "/"
	}
	v.Changes = append(v.Changes, c)
}

// differs says what is not the same of two files at one path. Objects are read only where their checksums differ.
func differs(x, y *file) (string, error) {
	var what []string
	note := func(differ bool, name string) {
		if differ {
			what = append(what, name)
		}
	}
	if x.Mode&unix.S_IFMT != y.Mode&unix.S_IFMT || x.Whiteout != y.Whiteout {
		return "type", nil
	}
	isObject := !x.IsDir() && !x.Checksum.IsZero()
	if isObject && x.Checksum != y.Checksum {
		if err := x.load(); err != nil {
			return "", err
		}
		if err := y.load(); err != nil {
			return "", err
		}
	}
	if !isObject || x.Checksum != y.Checksum {
		note(x.Mode != y.Mode, "mode")
		note(x.UID != y.UID || x.GID != y.GID, "owner")
		note(x.Target != y.Target, "target")
		note(x.Major != y.Major || x.Minor != y.Minor, "device")
		note(!object.EqualXattrs(x.Xattrs, y.Xattrs), "xattrs")
	}
	if isRegular(x.Mode) && x.Checksum != y.Checksum {
		same := x.Size == y.Size
		if same && len(what) > 0 {
			var err error
			if same, err = sameContent(x, y); err != nil {
				return "", err
			}
		} else if same {
			same = false // the headers are alike, so the content differs
		}
		note(!same, "content")
	}
	note(x.MTime != y.MTime, "time")
	return strings.Join(what, ","), nil
}
