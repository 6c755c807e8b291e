package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
)

// answer prints one document: value as JSON, or what table gives as rows of tab-separated cells under a heading.
func (a *app) answer(value any, heading string, rows []string) error {
	if a.format == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(value)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	if heading != "" {
		fmt.Fprintln(w, heading)
	}
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}

// row joins the cells of a table's row.
func row(cells ...string) string { return strings.Join(cells, "\t") }

// size writes bytes for people.
func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }
