package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// A part is one line of du's answer by image, layer, directory or owner.
type part struct {
	Name   string   `json:"name"`
	Names  []string `json:"names"`
	Size   int64    `json:"size"`
	Shared int64    `json:"shared"`
	Unique int64    `json:"unique"`
	Frees  *int64   `json:"frees,omitempty"`
	Unpin  *int64   `json:"unpin_frees,omitempty"`
	UsedBy []string `json:"used_by"`
}

type freesAnswer struct {
	Total    int64 `json:"total"`
	Data     int64 `json:"data"`
	Lanes    int64 `json:"lanes"`
	Private  int64 `json:"private"`
	Metadata int64 `json:"metadata"`
	Records  int64 `json:"records"`
	Objects  int64 `json:"objects"`
	Layers   int   `json:"layers"`
}

type duAnswer struct {
	Images []string    `json:"images"`
	Frees  freesAnswer `json:"frees"`
	Unpin  freesAnswer `json:"unpin_frees"`
	By     string      `json:"by"`
	Parts  []part      `json:"parts"`
	Lanes  lanesAnswer `json:"lanes"`
	Common [][]int64   `json:"common"`
}

type lanesAnswer struct {
	Count  int64 `json:"count"`
	Unused int64 `json:"unused"`
	Bytes  int64 `json:"bytes"`
}

const duHelp = `Says what images take, and exactly what removing them frees.

FREES is what df shows after all the given images (without any: all images) are removed together: the blocks of every inode that
loses its last name. It is measured on the filesystem, for the layers that would go, not estimated:
  data      file objects that no other layer, container, ref or pinned store has
  lanes     further inodes of file objects, which exist because two files differ in time or are in one root twice
  private   inodes that only one layer has: files under etc and var, empty files, devices
  metadata  commits, dirtrees, dirmetas, refs and directories that go
  records   what containers/storage keeps of images and layers: manifests, configs, tar-splits
FREES differs from df by the filesystem's own rounding: less than 64 KiB a layer (directories of the repository and the index do not
shrink at once), and on btrfs and xfs by metadata that they keep outside of files. An image that a container uses frees nothing: it
cannot be removed. A reflinked lane counts with its blocks, though they may be shared.

The lanes of the whole store are counted with what they take besides their objects: next to nothing where there are reflinks.

UNPIN is the same for the pinned store: what df shows after all pins of the images end. An image that is pinned and in the store as well
keeps its data until it is gone from both. Layers that a registered graphroot needs stay (storagectl pin ls --held).

SIZE, SHARED and UNIQUE are those of "storagectl images", for the parts named by --by. A part that is one image or layer has its own
FREES, if it alone were removed; the parts do not add up, because what two of them share goes only with the second.`

func (a *app) duCommand() *cobra.Command {
	by := "image"
	c := &cobra.Command{
		Use:   "du [IMAGE...]",
		Short: "Say what images take, and what removing them frees",
		Long:  duHelp,
		RunE:  func(_ *cobra.Command, args []string) error { return a.du(args, by) },
	}
	c.Flags().StringVar(&by, "by", by, "divide by image, layer, directory or owner")
	return c
}

func (a *app) du(args []string, by string) error {
	if !slices.Contains([]string{"image", "layer", "directory", "owner"}, by) {
		return advise(fmt.Errorf("--by %s: use image, layer, directory or owner", by), "storagectl du --help")
	}
	if gone, err := a.nothing(); gone || err != nil {
		if gone && len(args) > 0 {
			err = a.noStore()
		} else if err == nil {
			err = a.answer(duAnswer{Images: []string{}, By: by, Parts: []part{}, Common: [][]int64{}}, duHeading(by), nil)
		}
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(fewCollections))
	d, err := a.newDisk(len(args) == 0)
	if err != nil {
		return err
	}
	set := d.images
	if len(args) > 0 {
		set = nil
		for _, arg := range args {
			k, err := a.image(arg)
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(set, func(o *knownImage) bool { return o.ID == k.ID }); i < 0 {
				set = append(set, k)
			}
		}
	}
	v := duAnswer{Images: []string{}, By: by, Parts: []part{}}
	for _, k := range set {
		v.Images = append(v.Images, k.ID)
	}
	if by == "image" { // while what is looked at ahead is looked at
		d.partsByImage(&v, set)
	}
	if err := d.free(set, by); err != nil {
		return err
	}
	v.Frees, v.Unpin = d.frees[0], d.unpins[0]
	for _, home := range d.homes[:d.own] {
		use, err := home.Repo().LaneUse(context.Background())
		if err != nil {
			return err
		}
		v.Lanes.Count += use.Lanes
		v.Lanes.Unused += use.Unused
		v.Lanes.Bytes += use.Bytes
	}
	if err := d.parts(&v, set, by); err != nil {
		return err
	}
	d.use.save(len(set) == len(d.images))
	return a.answerDu(&v, set)
}

// fewCollections lets the heap grow to five times of what is needed: du makes little garbage, and ends soon.
const fewCollections = 400

func duHeading(by string) string {
	return row(strings.ToUpper(by), "SIZE", "SHARED", "UNIQUE", "FREES", "UNPIN")
}

func (a *app) answerDu(v *duAnswer, set []*knownImage) error {
	var rows []string
	for _, p := range v.Parts {
		frees := "-"
		switch {
		case len(p.UsedBy) > 0:
			frees = "in use by " + strings.Join(p.UsedBy, ", ")
		case p.Frees != nil:
			frees = size(*p.Frees)
		}
		unpin := "-"
		if p.Unpin != nil {
			unpin = size(*p.Unpin)
		}
		title := printable(p.Name)
		if v.By == "image" || v.By == "layer" {
			title = name(p.Name, p.Names)
		}
		rows = append(rows, row(title, size(p.Size), size(p.Shared), size(p.Unique), frees, unpin))
	}
	if err := a.answer(v, duHeading(v.By), rows); err != nil {
		return err
	}
	a.say("\nRemoving %s together frees %s: data %s, lanes %s, private %s, metadata %s, records %s.", count(len(set), "image"),
		size(v.Frees.Total), size(v.Frees.Data), size(v.Frees.Lanes), size(v.Frees.Private), size(v.Frees.Metadata), size(v.Frees.Records))
	if v.Unpin.Layers > 0 {
		a.say("Unpinning what is pinned of them frees %s: data %s, lanes %s, private %s, metadata %s, records %s.", size(v.Unpin.Total),
			size(v.Unpin.Data), size(v.Unpin.Lanes), size(v.Unpin.Private), size(v.Unpin.Metadata), size(v.Unpin.Records))
	}
	a.say("Lanes of the whole store: %d, %s (%d unused).", v.Lanes.Count, size(v.Lanes.Bytes), v.Lanes.Unused)
	if v.By == "image" && len(v.Common) > 1 {
		a.picture(v, set)
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// picture draws who shares what with whom: a bar for each pair, as long as the part of the smaller one that they have in common.
func (a *app) picture(v *duAnswer, set []*knownImage) {
	const width = 20
	a.say("\nWho shares what with whom (a full bar: all of the row's image):")
	for i := range v.Common {
		a.say("%s  %s", name(set[i].ID, set[i].Names), size(v.Common[i][i]))
		for j := range v.Common {
			if i == j || v.Common[i][j] == 0 {
				continue
			}
			full := int(v.Common[i][j] * width / max(v.Common[i][i], 1))
			a.say("  %s%s %8s  %s", strings.Repeat("█", full), strings.Repeat("░", width-full), size(v.Common[i][j]), name(set[j].ID, set[j].Names))
		}
	}
}

// parts divides the images' bytes. Of each image that was done before but for what it frees.
func (d *disk) parts(v *duAnswer, set []*knownImage, by string) error {
	switch by {
	case "directory", "owner":
		return d.partsWithin(v, set, by)
	case "layer":
		return d.partsByLayer(v, set)
	}
	for n, k := range set {
		if k.Own {
			v.Parts[n].Frees = &d.frees[n+1].Total
		}
		if k.Pinned {
			v.Parts[n].Unpin = &d.unpins[n+1].Total
		}
	}
	return nil
}

func (d *disk) partsByImage(v *duAnswer, set []*knownImage) {
	owners := make([][]int32, len(d.images))
	for i, k := range d.images {
		owners[i] = d.use.chains[k.TopLayer]
	}
	shares := d.use.shares(owners)
	at := map[string]int{}
	for i, k := range d.images {
		at[k.ID] = i
	}
	var chosen [][]int32
	for _, k := range set {
		share := shares[at[k.ID]]
		v.Parts = append(v.Parts, part{
			Name: k.ID, Names: append([]string{}, k.Names...), Size: share.Size, Shared: share.Size - share.Unique, Unique: share.Unique,
			UsedBy: append([]string{}, d.usedBy[k.ID]...),
		})
		chosen = append(chosen, owners[at[k.ID]])
	}
	v.Common = d.use.common(chosen)
}
