package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

type imageAnswer struct {
	ID       string   `json:"id"`
	Names    []string `json:"names"`
	TopLayer string   `json:"top_layer"`
	Layers   int      `json:"layers"`
	ReadOnly bool     `json:"read_only"`
	Created  string   `json:"created"`
}

func (a *app) imagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "images",
		Short: "List the images of the store and of the additional stores",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			images, err := s.Images()
			if err != nil {
				return fmt.Errorf("list images: %w", err)
			}
			answers := make([]imageAnswer, 0, len(images))
			rows := make([]string, 0, len(images))
			for _, image := range images {
				n := 0
				for id := image.TopLayer; id != ""; n++ {
					layer, err := s.Layer(id)
					if err != nil {
						return fmt.Errorf("layer of image %s: %w", image.ID, err)
					}
					id = layer.Parent
				}
				answers = append(answers, imageAnswer{image.ID, image.Names, image.TopLayer, n, image.ReadOnly, image.Created.UTC().Format("2006-01-02T15:04:05Z")})
				rows = append(rows, row(short(image.ID), strings.Join(image.Names, " "), fmt.Sprint(n)))
			}
			return a.answer(answers, row("IMAGE", "NAMES", "LAYERS"), rows)
		},
	}
}

// short is what people type of an id.
func short(id string) string { return id[:min(12, len(id))] }

type layerAnswer struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	DiffID string `json:"diff_id"`
	Bytes  int64  `json:"bytes"`
}

func (a *app) layersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "layers",
		Short: "List the layers of the store and of the additional stores",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			layers, err := s.Layers()
			if err != nil {
				return fmt.Errorf("list layers: %w", err)
			}
			answers := make([]layerAnswer, 0, len(layers))
			rows := make([]string, 0, len(layers))
			for _, l := range layers {
				answers = append(answers, layerAnswer{l.ID, l.Parent, l.UncompressedDigest.String(), l.UncompressedSize})
				rows = append(rows, row(short(l.ID), short(l.Parent), size(l.UncompressedSize)))
			}
			return a.answer(answers, row("LAYER", "PARENT", "SIZE"), rows)
		},
	}
}
