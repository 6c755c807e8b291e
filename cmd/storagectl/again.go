package main

import (
	"time"

	"github.com/spf13/cobra"
)

// looks is how often a command looks before damage is believed, and pause how long it waits in between.
const (
	looks = 3
	pause = 100 * time.Millisecond
)

// again lets a command look again where it found damage, as long as it has not answered. Records are read first and what they name
// later, without a lock: a layer that others remove in between is missing like one that was lost, but only until the records are read again.
func (a *app) again(c *cobra.Command) *cobra.Command {
	look := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		for n := 1; ; n++ {
			err := look(c, args)
			if exitCode(err) != exitDamage || a.answered || n == looks {
				return err
			}
			time.Sleep(pause)
		}
	}
	return c
}
