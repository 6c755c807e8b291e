package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say what the driver found and how it works here",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			status, err := s.Status()
			if err != nil {
				return fmt.Errorf("ask the driver: %w", err)
			}
			answers := map[string]string{}
			var rows []string
			for _, pair := range status {
				answers[pair[0]] = pair[1]
				rows = append(rows, row(pair[0], pair[1]))
			}
			return a.answer(answers, "", rows)
		},
	}
}
