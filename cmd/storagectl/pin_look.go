package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostree-storage/ostree-storage/pins"
)

type heldAnswer struct {
	Held       []pins.Held       `json:"held"`
	Unreadable []pins.Unreadable `json:"unreadable"`
}

func (a *app) pinLsCommand() *cobra.Command {
	held := false
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the pins, or the layers that stay because a graphroot needs them",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if held {
				return a.listHeld()
			}
			return a.listPins()
		},
	}
	c.Flags().BoolVar(&held, "held", false, "list layers of no pinned image, and which graphroots need them")
	return c
}

func (a *app) listPins() error {
	list := []pins.Listed{}
	err := a.viewPins(func(s *pins.Store) (err error) {
		list, err = s.List()
		return err
	})
	if err != nil && !errors.Is(err, pins.ErrNoStore) {
		return err
	}
	var rows []string
	for _, p := range list {
		expires := "-"
		if p.Expires != nil {
			expires = p.Expires.Format(time.DateOnly)
		}
		state := ""
		switch {
		case p.Missing:
			state = "image missing"
		case p.Expired:
			state = "expired"
		case p.Unnamed:
			state = "without entry"
		}
		rows = append(rows, row(p.Name, short(p.Image), strings.Join(p.Names, " "), p.Since.Format(time.DateOnly), expires, p.Reason, state))
	}
	return a.answer(list, row("PIN", "IMAGE", "NAMES", "SINCE", "EXPIRES", "REASON", "STATE"), rows)
}

func (a *app) listHeld() error {
	answer := heldAnswer{Held: []pins.Held{}, Unreadable: []pins.Unreadable{}}
	err := a.viewPins(func(s *pins.Store) error {
		held, unreadable, err := s.Held()
		answer.Held = append(answer.Held, held...)
		answer.Unreadable = append(answer.Unreadable, unreadable...)
		return err
	})
	if err != nil && !errors.Is(err, pins.ErrNoStore) {
		return err
	}
	var rows []string
	for _, h := range answer.Held {
		var by []string
		for _, n := range h.By {
			by = append(by, fmt.Sprintf("%s (%s)", n.Graphroot, short(n.Layer+n.Image)))
		}
		rows = append(rows, row(short(h.Layer), short(h.Parent), strings.Join(by, " ")))
	}
	for _, u := range answer.Unreadable {
		rows = append(rows, row("?", "?", u.Graphroot+" cannot be read: "+u.Reason))
	}
	return a.answer(answer, row("LAYER", "PARENT", "NEEDED BY"), rows)
}

func (a *app) pinVerifyCommand() *cobra.Command {
	quick := false
	c := &cobra.Command{
		Use:   "verify [PIN|IMAGE]...",
		Short: "Compare pinned images with their digests",
		Long: `verify puts every layer of the pinned images together again and hashes it, and hashes every object of the pinned store's
repository. It changes nothing. Its exit code is 2 if anything is damaged.`,
		RunE: func(c *cobra.Command, args []string) error {
			answer := &pins.Verified{Images: []pins.VerifiedImage{}, Repo: []string{}}
			err := a.viewPins(func(s *pins.Store) (err error) {
				answer, err = s.Verify(c.Context(), args, quick)
				return err
			})
			if err != nil && !(errors.Is(err, pins.ErrNoStore) && len(args) == 0) {
				return err
			}
			var rows []string
			for _, i := range answer.Images {
				state := "fine"
				if len(i.Problems) > 0 {
					state = "DAMAGED: " + strings.Join(i.Problems, "; ")
				}
				rows = append(rows, row(short(i.Image), strings.Join(i.Pins, " "), fmt.Sprint(i.Layers), state))
			}
			for _, f := range answer.Repo {
				rows = append(rows, row("repository", "", "", "DAMAGED: "+f))
			}
			if err := a.answer(answer, row("IMAGE", "PINS", "LAYERS", "STATE"), rows); err != nil {
				return err
			}
			if answer.Damaged() {
				return advise(codeError{exitDamage, errors.New("pinned images are damaged")}, "pull the image again and storagectl pin it again")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&quick, "quick", false, "read no file's content: names, records and metadata only")
	return c
}

type doctorAnswer struct {
	Store  string        `json:"store"`
	Exists bool          `json:"exists"`
	Advice []pins.Advice `json:"advice"`
	CRIO   *crioAnswer   `json:"crio,omitempty"`
}

func (a *app) pinDoctorCommand() *cobra.Command {
	var f crioFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps pins from doing their work, and say what to do",
		Long: `doctor looks at the table of pins, the registered graphroots, the place of the pinned store and CRI-O's configuration. It changes
nothing, except with --crio, which writes CRI-O's list of pinned images.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			o, err := a.pinOptions()
			if err != nil {
				return err
			}
			answer := doctorAnswer{Store: o.Path, Advice: []pins.Advice{}}
			err = a.viewPins(func(s *pins.Store) (err error) {
				answer.Exists = true
				if f.crio {
					if answer.CRIO, err = a.keepCRIO(s, &f); err != nil {
						return err
					}
				}
				answer.Advice, err = s.Doctor(&pins.CRIO{Dir: f.dir})
				return err
			})
			if err != nil && !errors.Is(err, pins.ErrNoStore) {
				return err
			}
			rows := []string{"pinned store: " + answer.Store}
			if !answer.Exists {
				rows = []string{"pinned store: none yet at " + answer.Store}
			}
			for _, v := range answer.Advice {
				rows = append(rows, v.Problem, "    next: "+v.Next)
			}
			if len(answer.Advice) == 0 {
				rows = append(rows, "nothing to advise")
			}
			return a.answer(answer, "", append(rows, answer.CRIO.rows()...))
		},
	}
	f.add(c)
	return c
}
