package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

type checkoutAnswer struct {
	Image string `json:"image"`
	Dir   string `json:"dir"`
	Way   string `json:"way"`
	Note  string `json:"note,omitempty"`
}

func (a *app) checkoutCommand() *cobra.Command {
	var layer, copies bool
	c := &cobra.Command{
		Use:   "checkout IMAGE DIR",
		Short: "Write the whole tree of an image into a directory",
		Long: `Writes what a container of the image would see into DIR, which is made if it does not exist and must be empty if it does.

Files are hardlinks to the store's own inodes where DIR is on the same mount: that costs no data, and whoever writes to such a file
writes to every image that has it. With --copy, or on another mount, they are copies, reflinked where the filesystem can.
Devices, fifos and files whose link count is exact are made anew in either case.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			chain, err := a.tree(args[0], layer)
			if err != nil {
				return err
			}
			return a.checkout(chain, args[0], args[1], copies)
		},
	}
	c.Flags().BoolVar(&layer, "layer", false, "IMAGE is a layer")
	c.Flags().BoolVar(&copies, "copy", false, "copy files instead of linking them")
	return c
}

func (a *app) checkout(chain []*layers.Layer, image, dir string, copies bool) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	// The place must be free; an empty directory is replaced.
	switch err := os.Remove(dir); {
	case err == nil, errors.Is(err, os.ErrNotExist):
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return refused(advise(fmt.Errorf("%s is not empty", dir), "storagectl checkout %s %s.new", image, dir))
	default:
		return advise(fmt.Errorf("use %s: %w", dir, err), "storagectl checkout %s %s.new", image, dir)
	}
	ctx := context.Background()
	m, err := layers.Merge(ctx, chain)
	if err != nil {
		return advise(err, "storagectl check")
	}
	v := checkoutAnswer{Image: image, Dir: dir, Way: "hardlinks"}
	if copies {
		v.Way = "copies"
	}
	err = layers.Flat{Copy: copies}.Materialise(ctx, m, dir)
	if errors.Is(err, unix.EXDEV) {
		v.Way, v.Note = "copies", "the directory is not on the mount of the store, so files are copied"
		if err = os.RemoveAll(dir); err == nil {
			err = layers.Flat{Copy: true}.Materialise(ctx, m, dir)
		}
	}
	if err != nil {
		return advise(errors.Join(fmt.Errorf("check %s out: %w", image, err), os.RemoveAll(dir)), "storagectl checkout --copy %s %s", image, dir)
	}
	rows := []string{row("Directory", dir), row("Files are", v.Way)}
	if v.Note != "" {
		rows = append(rows, row("Note", v.Note))
	}
	return a.answer(v, "", rows)
}
