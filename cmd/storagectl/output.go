package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// answer prints one document: value as JSON, or what table gives as rows of tab-separated cells under a heading.
func (a *app) answer(value any, heading string, rows []string) error {
	a.answered = true
	if a.format == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
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

// say prints a line for people; with --format json it says nothing.
func (a *app) say(format string, args ...any) {
	if a.format != "json" {
		fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// row joins the cells of a table's row.
func row(cells ...string) string { return strings.Join(cells, "\t") }

// size writes bytes for people.
func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// short is what people type of an id.
func short(id string) string { return id[:min(12, len(id))] }

// stamp writes a time for programs.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// name is what an image is called in a table.
func name(id string, names []string) string {
	if len(names) == 0 {
		return short(id)
	}
	return strings.Join(names, " ")
}

// printable writes a path for a terminal: names in images are any bytes.
func printable(path string) string {
	if !utf8.ValidString(path) {
		return fmt.Sprintf("%q", path)
	}
	for _, r := range path {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return fmt.Sprintf("%q", path)
		}
	}
	return path
}

// yes writes a flag in a table.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}
