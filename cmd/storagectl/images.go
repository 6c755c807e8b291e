package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/plugin"
)

type imageAnswer struct {
	ID       string   `json:"id"`
	Names    []string `json:"names"`
	Digests  []string `json:"digests"`
	TopLayer string   `json:"top_layer"`
	Layers   int      `json:"layers"`
	Created  string   `json:"created"`
	ReadOnly bool     `json:"read_only"`
	Pinned   bool     `json:"pinned"`
	Size     int64    `json:"size"`
	Shared   int64    `json:"shared"`
	Unique   int64    `json:"unique"`
}

const sizesHelp = `SIZE is what the distinct regular files of the %[1]s take, each file object once, rounded up to blocks of 4096 bytes.
UNIQUE is the part of SIZE that no other %[1]s has; SHARED is the rest. Sizes come from the commits' metadata: metadata objects, inodes
of their own (under etc and var) and lanes are not in them. What a removal really frees is in "storagectl du".`

func (a *app) imagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "images",
		Short: "List the images of the store and of the additional stores",
		Long: "Lists the images of the store, of the additional stores and of the pinned one.\n\n" + fmt.Sprintf(sizesHelp, "image") + `
PINNED images are in the pinned store: nothing that prunes, wipes or resets removes them.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if gone, err := a.nothing(); gone || err != nil {
				return errors.Join(err, a.answerIf(gone, []imageAnswer{}, imagesHeading))
			}
			answers, err := a.imageAnswers()
			if err != nil {
				return err
			}
			rows := make([]string, 0, len(answers))
			for _, v := range answers {
				rows = append(rows, row(short(v.ID), name(v.ID, v.Names), fmt.Sprint(v.Layers), size(v.Size), size(v.Shared), size(v.Unique), yes(v.Pinned)))
			}
			return a.answer(answers, imagesHeading, rows)
		},
	}
}

var imagesHeading = row("IMAGE", "NAMES", "LAYERS", "SIZE", "SHARED", "UNIQUE", "PINNED")

// nothing tells if there is neither a graphroot nor another store that is read, so that the answer is empty and nothing is made.
func (a *app) nothing() (bool, error) {
	_, exists, err := a.graphroot()
	if err != nil || exists {
		return false, err
	}
	o, err := a.options()
	if err != nil {
		return false, err
	}
	pinned, err := plugin.PinnedStore(o.GraphRoot, o.RunRoot, o.GraphDriverOptions)
	if err != nil {
		return false, err
	}
	var others []string
	if pinned != "" {
		others = append(others, filepath.Join(pinned, driverName))
	}
	for _, option := range o.GraphDriverOptions {
		if key, path, ok := strings.Cut(option, "="); ok && strings.HasSuffix(key, "imagestore") {
			others = append(others, strings.Split(path, ",")...)
		}
	}
	for _, path := range others {
		if _, err := os.Stat(path); err == nil {
			return false, nil
		}
	}
	return true, nil
}

func (a *app) answerIf(gone bool, empty any, heading string) error {
	if !gone {
		return nil
	}
	return a.answer(empty, heading, nil)
}

func (a *app) imageAnswers() ([]imageAnswer, error) {
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	tops := make([]string, len(images))
	for i, k := range images {
		tops[i] = k.TopLayer
	}
	table, err := a.layerTable()
	if err != nil {
		return nil, err
	}
	u, err := a.usage(table, tops, false, nil)
	if err != nil {
		return nil, err
	}
	owners := make([][]int32, len(images))
	for i, top := range tops {
		owners[i] = u.chains[top]
	}
	shares := u.shares(owners)
	answers := make([]imageAnswer, len(images))
	for i, k := range images {
		answers[i] = imageAnswer{
			ID: k.ID, Names: append([]string{}, k.Names...), Digests: digests(&k.Image), TopLayer: k.TopLayer, Layers: len(u.chains[k.TopLayer]),
			Created: stamp(k.Created), ReadOnly: !k.Own, Pinned: k.Pinned,
			Size: shares[i].Size, Shared: shares[i].Size - shares[i].Unique, Unique: shares[i].Unique,
		}
	}
	return answers, nil
}

func digests(image *storage.Image) []string {
	out := []string{}
	for _, d := range image.Digests {
		out = append(out, d.String())
	}
	return out
}

type layerAnswer struct {
	ID       string   `json:"id"`
	Parent   string   `json:"parent"`
	DiffID   string   `json:"diff_id"`
	Commit   string   `json:"commit"`
	Entries  int64    `json:"entries"`
	Images   []string `json:"images"`
	ReadOnly bool     `json:"read_only"`
	Pinned   bool     `json:"pinned"`
	Size     int64    `json:"size"`
	Shared   int64    `json:"shared"`
	Unique   int64    `json:"unique"`
}

var layersHeading = row("LAYER", "PARENT", "IMAGES", "SIZE", "SHARED", "UNIQUE", "PINNED")

func (a *app) layersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "layers",
		Short: "List the layers of the store and of the additional stores",
		Long:  "Lists the layers, those of containers too.\n\n" + fmt.Sprintf(sizesHelp, "layer"),
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if gone, err := a.nothing(); gone || err != nil {
				return errors.Join(err, a.answerIf(gone, []layerAnswer{}, layersHeading))
			}
			answers, err := a.layerAnswers()
			if err != nil {
				return err
			}
			rows := make([]string, 0, len(answers))
			for _, v := range answers {
				rows = append(rows, row(short(v.ID), short(v.Parent), fmt.Sprint(len(v.Images)), size(v.Size), size(v.Shared), size(v.Unique), yes(v.Pinned)))
			}
			return a.answer(answers, layersHeading, rows)
		},
	}
}

func (a *app) layerAnswers() ([]layerAnswer, error) {
	t, err := a.layerTable()
	if err != nil {
		return nil, err
	}
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	users := make([][]string, len(t.list))
	pinned := make([]bool, len(t.list))
	for _, k := range images {
		for n := t.find(k.TopLayer); n != noLayer; n = t.parents[n] {
			users[n] = append(users[n], k.ID)
			pinned[n] = pinned[n] || k.Pinned
		}
	}
	ids := make([]string, len(t.list))
	owners := make([][]int32, len(t.list))
	for n, l := range t.list {
		ids[n], owners[n] = l.ID, []int32{int32(n)}
	}
	u, err := a.usage(t, ids, false, nil)
	if err != nil {
		return nil, err
	}
	shares := u.shares(owners)
	answers := make([]layerAnswer, len(ids))
	for n, l := range t.list {
		own, err := u.catalog(int32(n)).Layer(l.ID)
		if err != nil {
			return nil, advise(codeError{exitDamage, err}, "storagectl check")
		}
		answers[n] = layerAnswer{
			ID: l.ID, Parent: l.Parent, DiffID: l.DiffID, Entries: own.Entries, Images: append([]string{}, users[n]...),
			ReadOnly: l.ReadOnly, Pinned: pinned[n], Size: shares[n].Size, Shared: shares[n].Size - shares[n].Unique, Unique: shares[n].Unique,
		}
		if own.Applied() {
			answers[n].Commit = own.Commit.String()
		}
	}
	return answers, nil
}
