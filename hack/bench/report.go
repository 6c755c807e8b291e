package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// report is what the JSON file holds.
type report struct {
	Began   time.Time
	Cut     bool // the limit on time ended it early
	Machine string
	Crowd   int // images of the large store of level scale
	Files   int // of the large layer of level memory
	Images  []string
	Runs    []measurement
}

// show prints what several runs on one machine measured as one.
func show(files []string, drivers []string) error {
	all := &report{}
	for i, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		runs := all.Runs
		if i == 0 {
			*all = r
			continue
		}
		all.Runs = append(runs, r.Runs...)
	}
	all.print(os.Stdout, drivers)
	return nil
}

func describeMachine() string {
	version, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("Linux %s, %d cores (%s), %s", strings.TrimSpace(string(version)), runtime.NumCPU(), model, runtime.Version())
}

func describeImages(set *fixtures.Set) []string {
	var out []string
	for _, i := range set.Images {
		entries := int64(0)
		for _, l := range i.Layers {
			entries += l.Entries
		}
		out = append(out, fmt.Sprintf("%s: %d layers, %d entries, %d MB", i.Name, len(i.Layers), entries, i.Size()/1e6))
	}
	return out
}

// print writes the table: for each row the medians of both drivers, their ratio,
// and the lowest and highest ratio of the rounds.
func (r *report) print(w io.Writer, drivers []string) {
	fmt.Fprintf(w, "%s; %s\n", r.Began.Format(time.DateOnly), r.Machine)
	for _, i := range r.Images {
		fmt.Fprintf(w, "  %s\n", i)
	}
	if r.Cut {
		fmt.Fprintln(w, "  The limit on time ended the last round early.")
	}
	r.printTargets(w, drivers)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	ours, theirs := drivers[0], drivers[len(drivers)-1]
	last := ""
	for _, key := range r.keys() {
		if section := key.FS + " " + key.Level; section != last {
			last = section
			fmt.Fprintf(t, "\n%s, %s\t%s\t%s\tratio\t(rounds)\tsettle\tCPU s\twritten MB\tinodes\tmemory MB\n", key.FS, key.Level, ours, theirs)
		}
		a, b := r.of(key, ours), r.of(key, theirs)
		if len(a) == 0 || len(b) == 0 {
			if len(a) == 0 {
				a = append(append(a, r.of(key, "tools")...), r.of(key, upstreamOnly)...)
			} else if key.Level == "memory" {
				b = r.of(key, upstreamOnly)
				fmt.Fprintf(t, "%s\t%s\t%s (%s)\n", key.Row, a.seconds(), b.seconds(), upstreamOnly)
				continue
			}
			fmt.Fprintf(t, "%s\t%s\t\t\t\t%s\t%s\t%s\t%s\n", key.Row, a.seconds(), a.pick(settle), a.pick(cpu), a.pick(written), a.pick(inodes))
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key.Row, a.seconds(), b.seconds(), ratio(a, b), spread(a, b),
			both(a, b, settle), both(a, b, cpu), both(a, b, written), both(a, b, inodes), both(a, b, memory))
	}
}

// keys are the rows in the order in which they were first measured.
func (r *report) keys() []measurement {
	var out []measurement
	for _, level := range levels {
		for _, m := range r.Runs {
			k := measurement{FS: m.FS, Level: m.Level, Row: m.Row}
			if m.Level == level.name && !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b measurement) int { return strings.Compare(a.FS, b.FS) })
	return out
}

// column is one row of one driver, over all rounds.
type column []measurement

func (r *report) of(key measurement, driver string) (c column) {
	for _, m := range r.Runs {
		if m.FS == key.FS && m.Level == key.Level && m.Row == key.Row && m.Driver == driver {
			c = append(c, m)
		}
	}
	return c
}

func (c column) median(f func(measurement) float64) float64 {
	var list []float64
	for _, m := range c {
		list = append(list, f(m))
	}
	return median(list)
}

// wall is what a row is about: its time, or its amount of something else.
func wall(m measurement) float64 {
	if m.Unit != "" {
		return m.Value
	}
	return m.Seconds
}

func amount(m measurement) float64  { return m.Value }
func settle(m measurement) float64  { return m.Settle }
func cpu(m measurement) float64     { return m.CPU }
func written(m measurement) float64 { return float64(m.Written) / 1e6 }
func inodes(m measurement) float64  { return float64(m.Inodes) }
func memory(m measurement) float64  { return float64(m.Memory+m.ChildMemory) / 1e6 }

func (c column) seconds() string {
	switch s := c.median(wall); {
	case len(c) == 0:
		return "-"
	case c[0].Unit != "":
		return fmt.Sprintf("%.4g %s", c.median(amount), c[0].Unit)
	case s < 0.1:
		return fmt.Sprintf("%.2f ms", s*1000)
	default:
		return fmt.Sprintf("%.2f s", s)
	}
}

func (c column) pick(f func(measurement) float64) string {
	if len(c) == 0 || c[0].Times > 0 && c.median(f) == 0 {
		return ""
	}
	return strings.TrimSuffix(fmt.Sprintf("%.3g", c.median(f)), ".0")
}

func both(a, b column, f func(measurement) float64) string {
	if p, q := a.pick(f), b.pick(f); p != "" || q != "" {
		return p + " / " + q
	}
	return ""
}

func ratio(a, b column) string {
	if len(a) == 0 || len(b) == 0 || b.median(wall) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a.median(wall)/b.median(wall))
}

func spread(a, b column) string {
	var list []float64
	for i := range min(len(a), len(b)) {
		list = append(list, wall(a[i])/wall(b[i]))
	}
	if len(list) < 2 {
		return ""
	}
	return fmt.Sprintf("(%.2f-%.2f)", slices.Min(list), slices.Max(list))
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	if n := len(list); n%2 == 0 {
		return (list[n/2-1] + list[n/2]) / 2
	}
	return list[len(list)/2]
}
