package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
)

type mountAnswer struct {
	Image string `json:"image"`
	Path  string `json:"path"`
}

func (a *app) mountCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mount [IMAGE]",
		Short: "Mount an image read-only, pinned ones too, and print where",
		Long: `Mounts an image read-only and prints where. Images of additional stores and pinned images can be mounted as well.
Without IMAGE, lists the images that are mounted.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.mounts()
			}
			k, path, err := a.mountImage(args[0])
			if err != nil {
				return err
			}
			return a.answer(mountAnswer{k.ID, path}, "", []string{path})
		},
	}
}

func (a *app) umountCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "umount IMAGE...",
		Short: "Undo a mount",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			answers, rows := []mountAnswer{}, []string{}
			for _, arg := range args {
				k, err := a.image(arg)
				if err != nil {
					return err
				}
				if err := a.unmountImage(k); err != nil {
					return err
				}
				answers, rows = append(answers, mountAnswer{Image: k.ID}), append(rows, k.ID)
			}
			return a.answer(answers, "", rows)
		},
	}
}

// mountImage mounts an image. containers/storage mounts images of its own store only, and counts them; others are the driver's.
func (a *app) mountImage(arg string) (*knownImage, string, error) {
	k, err := a.image(arg)
	if err != nil {
		return nil, "", err
	}
	if k.TopLayer == "" {
		return nil, "", advise(fmt.Errorf("image %s has no layers", arg), "storagectl show %s", short(k.ID))
	}
	if k.Own {
		path, err := a.opened.MountImage(k.ID, nil, "")
		if !errors.Is(err, storage.ErrLayerUnknown) && !errors.Is(err, storage.ErrNotAnImage) {
			if err != nil {
				err = advise(fmt.Errorf("mount %s: %w", arg, err), "storagectl check")
			}
			return k, path, err
		}
	}
	d, err := a.opened.GraphDriver()
	if err != nil {
		return nil, "", fmt.Errorf("open driver: %w", err)
	}
	path, err := d.Get(k.TopLayer, graphdriver.MountOpts{Options: []string{"ro"}})
	if err != nil {
		return nil, "", advise(fmt.Errorf("mount %s: %w", arg, err), "storagectl check")
	}
	a.keep = true
	return k, path, nil
}

func (a *app) unmountImage(k *knownImage) error {
	const next = "storagectl mount"
	path, err := a.driverMount(k)
	if err == nil && path == "" {
		err = fmt.Errorf("image %s is not mounted", short(k.ID))
	}
	if err != nil {
		return advise(err, next)
	}
	if k.Own {
		_, err := a.opened.UnmountImage(k.ID, false)
		if !errors.Is(err, storage.ErrLayerUnknown) && !errors.Is(err, storage.ErrLayerNotMounted) {
			return advise(err, next)
		}
	}
	d, err := a.opened.GraphDriver()
	if err == nil {
		err = d.Put(k.TopLayer)
	}
	return advise(err, next)
}

// driverMount returns where the driver has mounted the image's layer, "" if it has not.
func (a *app) driverMount(k *knownImage) (string, error) {
	d, err := a.opened.GraphDriver()
	if err != nil {
		return "", fmt.Errorf("open driver: %w", err)
	}
	m, err := d.Metadata(k.TopLayer)
	if err != nil {
		return "", fmt.Errorf("ask the driver: %w", err)
	}
	return m["MergedDir"], nil
}

func (a *app) mounts() error {
	images, err := a.images()
	if err != nil {
		return err
	}
	answers, rows := []mountAnswer{}, []string{}
	for _, k := range images {
		if k.TopLayer == "" {
			continue
		}
		path, err := a.driverMount(k)
		if err != nil {
			return err
		}
		if path != "" {
			answers = append(answers, mountAnswer{k.ID, path})
			rows = append(rows, row(name(k.ID, k.Names), path))
		}
	}
	return a.answer(answers, "", rows)
}
