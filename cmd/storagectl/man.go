package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

type manAnswer struct {
	Dir string `json:"dir"`
}

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write man pages of all commands into a directory",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "8", Source: "storagectl", Manual: "storagectl"}, args[0]); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			return a.answer(manAnswer{args[0]}, "", nil)
		},
	}
}
