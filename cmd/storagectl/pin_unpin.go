package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostree-storage/ostree-storage/pins"
)

type unpinAnswer struct {
	*pins.Removed
	CRIO *crioAnswer `json:"crio,omitempty"`
}

func (a *app) unpinCommand() *cobra.Command {
	var f struct {
		force, expired, held bool
		crio                 crioFlags
	}
	c := &cobra.Command{
		Use:   "unpin PIN|IMAGE",
		Short: "End a pin; its image goes with its last pin",
		Long: `unpin ends a pin. The image's record goes with its last pin, and with it every layer that no pinned image and no registered
graphroot needs; the others stay as held layers (storagectl pin ls --held). It refuses if a registered graphroot cannot be read.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			n := len(args)
			for _, given := range []bool{f.expired, f.held} {
				if given {
					n++
				}
			}
			if n != 1 {
				return advise(errors.New("name one PIN or IMAGE, or give --expired or --held"), "storagectl pin ls")
			}
			answer := unpinAnswer{}
			err := a.withPins(false, func(s *pins.Store) (err error) {
				switch {
				case f.expired:
					answer.Removed, err = s.UnpinExpired(time.Now(), f.force)
				case f.held:
					answer.Removed, err = s.Collect(f.force)
				default:
					answer.Removed, err = s.Unpin(args[0], f.force)
				}
				if err != nil {
					return err
				}
				if answer.CRIO, err = a.keepCRIO(s, &f.crio); err != nil {
					return err
				}
				return a.answer(answer, "", append(removedRows(answer.Removed), answer.CRIO.rows()...))
			})
			if errors.Is(err, pins.ErrNoStore) && len(args) == 0 { // a timer's run on a host without pins
				answer.Removed = &pins.Removed{Pins: []string{}, Images: []string{}, Layers: []string{}, Held: []pins.Held{}}
				return a.answer(answer, "", nil)
			}
			return err
		},
	}
	c.Flags().BoolVar(&f.force, "force", false, "go on though a registered graphroot cannot be read; what may break is named")
	c.Flags().BoolVar(&f.expired, "expired", false, "end every pin whose time is over")
	c.Flags().BoolVar(&f.held, "held", false, "remove the held layers that no registered graphroot needs any more")
	f.crio.add(c)
	return c
}

// removedRows says for people what was removed.
func removedRows(r *pins.Removed) []string {
	var rows []string
	for _, p := range r.Pins {
		rows = append(rows, "unpinned "+p)
	}
	for _, i := range r.Images {
		rows = append(rows, "removed image "+short(i))
	}
	if len(r.Layers) > 0 {
		rows = append(rows, fmt.Sprintf("removed %d layers", len(r.Layers)))
	}
	if len(r.Held) > 0 {
		rows = append(rows, fmt.Sprintf("%d layers are held for registered graphroots (storagectl pin ls --held)", len(r.Held)))
	}
	for _, b := range r.Broken {
		rows = append(rows, fmt.Sprintf("%s was not asked (%s): its images that stood on removed layers are broken", b.Graphroot, b.Reason))
		for _, l := range r.Layers {
			rows = append(rows, "    perhaps by layer "+short(l))
		}
	}
	return rows
}
