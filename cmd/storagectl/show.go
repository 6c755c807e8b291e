package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostree-storage/ostree-storage/layers"
)

type showLayer struct {
	ID      string `json:"id"`
	DiffID  string `json:"diff_id"`
	Commit  string `json:"commit"`
	Bytes   int64  `json:"bytes"`
	Entries int64  `json:"entries"`
	Home    string `json:"home"`
}

type showAnswer struct {
	ID         string           `json:"id"`
	Names      []string         `json:"names"`
	Digests    []string         `json:"digests"`
	Created    string           `json:"created"`
	ReadOnly   bool             `json:"read_only"`
	Pinned     bool             `json:"pinned"`
	Layers     []showLayer      `json:"layers"`
	BigData    map[string]int64 `json:"big_data"`
	Containers []string         `json:"containers"`
	Config     json.RawMessage  `json:"config,omitempty"`
}

func (a *app) showCommand() *cobra.Command {
	var layer bool
	c := &cobra.Command{
		Use:   "show IMAGE",
		Short: "Show what the store knows of an image or a layer",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if layer {
				return a.showLayer(args[0])
			}
			return a.showImage(args[0])
		},
	}
	c.Flags().BoolVar(&layer, "layer", false, "IMAGE is a layer")
	return c
}

func (a *app) describe(l *layers.Layer) showLayer {
	v := showLayer{ID: l.ID, Bytes: l.Size, Entries: l.Entries, Home: l.Catalog().Home()}
	if l.Applied() {
		v.Commit = l.Commit.String()
	}
	if record, err := a.opened.Layer(l.ID); err == nil {
		v.DiffID = record.UncompressedDigest.String()
	}
	return v
}

func (a *app) showLayer(arg string) error {
	chain, err := a.layer(arg)
	if err != nil {
		return err
	}
	v := a.describe(chain[0])
	rows := []string{
		row("Layer", v.ID), row("Parent", chain[0].Parent), row("DiffID", v.DiffID), row("Commit", v.Commit),
		row("Bytes", size(v.Bytes)), row("Entries", fmt.Sprint(v.Entries)), row("Home", v.Home),
	}
	return a.answer(v, "", rows)
}

func (a *app) showImage(arg string) error {
	k, err := a.image(arg)
	if err != nil {
		return err
	}
	chain, err := a.chain(k.TopLayer)
	if err != nil {
		return err
	}
	v := showAnswer{
		ID: k.ID, Names: append([]string{}, k.Names...), Digests: digests(&k.Image), Created: stamp(k.Created), ReadOnly: !k.Own, Pinned: k.Pinned,
		Layers: []showLayer{}, BigData: map[string]int64{}, Containers: []string{}, Config: a.config(k),
	}
	for n, bytes := range k.BigDataSizes {
		v.BigData[n] = bytes
	}
	for _, l := range slices.Backward(chain) {
		v.Layers = append(v.Layers, a.describe(l))
	}
	containers, err := a.opened.Containers()
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		if c.ImageID == k.ID {
			v.Containers = append(v.Containers, name(c.ID, c.Names))
		}
	}
	rows := []string{
		row("Image", v.ID), row("Names", strings.Join(v.Names, " ")), row("Digests", strings.Join(v.Digests, " ")), row("Created", v.Created),
		row("Read only", yes(v.ReadOnly)), row("Pinned", yes(v.Pinned)), row("Containers", strings.Join(v.Containers, " ")),
	}
	for i, l := range v.Layers {
		rows = append(rows, row(fmt.Sprintf("Layer %d", i+1), fmt.Sprintf("%s  %s  %d entries  commit %s", short(l.ID), size(l.Bytes), l.Entries, short(l.Commit))))
	}
	return a.answer(v, "", rows)
}

// config is an image's configuration, nil if it has none.
func (a *app) config(k *knownImage) json.RawMessage {
	for _, key := range k.BigDataNames {
		if key != "sha256:"+k.ID && key != k.ID {
			continue
		}
		if b, err := a.opened.ImageBigData(k.ID, key); err == nil && json.Valid(b) {
			return b
		}
	}
	return nil
}

type historyAnswer struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
	Comment   string `json:"comment"`
	Layer     string `json:"layer"`
	Bytes     int64  `json:"bytes"`
}

func (a *app) logCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "log IMAGE",
		Short: "Show the steps that made an image, the newest first",
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, args []string) error { return a.log(args[0]) },
	}
}

func (a *app) log(arg string) error {
	k, err := a.image(arg)
	if err != nil {
		return err
	}
	chain, err := a.chain(k.TopLayer)
	if err != nil {
		return err
	}
	var config struct {
		History []struct {
			Created    *time.Time `json:"created"`
			CreatedBy  string     `json:"created_by"`
			Comment    string     `json:"comment"`
			EmptyLayer bool       `json:"empty_layer"`
		} `json:"history"`
	}
	if b := a.config(k); b != nil {
		if err := json.Unmarshal(b, &config); err != nil {
			return fmt.Errorf("read the configuration of %s: %w", arg, err)
		}
	}
	answers := []historyAnswer{}
	next := len(chain) - 1 // chain has the base last
	take := func(v *historyAnswer) {
		if next >= 0 {
			v.Layer, v.Bytes = chain[next].ID, chain[next].Size
			next--
		}
	}
	for _, h := range config.History {
		v := historyAnswer{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			v.Created = stamp(*h.Created)
		}
		if !h.EmptyLayer {
			take(&v)
		}
		answers = append(answers, v)
	}
	for next >= 0 {
		var v historyAnswer
		take(&v)
		answers = append(answers, v)
	}
	slices.Reverse(answers)
	var rows []string
	for _, v := range answers {
		rows = append(rows, row(short(v.Layer), v.Created, size(v.Bytes), printable(strings.ReplaceAll(v.CreatedBy, "\t", " "))))
	}
	return a.answer(answers, row("LAYER", "CREATED", "BYTES", "CREATED BY"), rows)
}
