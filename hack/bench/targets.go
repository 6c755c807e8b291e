package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A target is a bound that the project set itself for a row.
type target struct {
	level, row string
	what       string
	most       float64
	of         func(r *report, key measurement, ours, theirs string) (float64, bool)
}

// ratioOf compares medians of a row of both drivers.
func ratioOf(r *report, key measurement, ours, theirs string) (float64, bool) {
	a, b := r.of(key, ours), r.of(key, theirs)
	if len(a) == 0 || len(b) == 0 || b.median(wall) == 0 {
		return 0, false
	}
	return a.median(wall) / b.median(wall), true
}

// against compares with another row of ours.
func against(other string) func(*report, measurement, string, string) (float64, bool) {
	return func(r *report, key measurement, ours, _ string) (float64, bool) {
		a := r.of(key, ours)
		key.Row = other
		b := r.of(key, ours)
		if len(a) == 0 || len(b) == 0 || b.median(wall) == 0 {
			return 0, false
		}
		return a.median(wall) / b.median(wall), true
	}
}

// beyond is by how many milliseconds a row of ours exceeds another.
func beyond(other string) func(*report, measurement, string, string) (float64, bool) {
	return func(r *report, key measurement, ours, _ string) (float64, bool) {
		a := r.of(key, ours)
		key.Row = other
		b := r.of(key, ours)
		return (a.median(wall) - b.median(wall)) * 1000, len(a) > 0 && len(b) > 0
	}
}

// millis is a row of ours in milliseconds.
func millis(r *report, key measurement, ours, _ string) (float64, bool) {
	a := r.of(key, ours)
	return a.median(wall) * 1000, len(a) > 0
}

const warm = "create, mount, unmount, delete a container"

func targets(crowd int) []target {
	many, few := fmt.Sprintf(" beside %d images", crowd), fmt.Sprintf(" beside %d images", fewImages)
	list := []target{
		{"storage", "put an image into an empty store", "of overlay", 0.7, ratioOf},
		{"storage", "put an image that is mostly known", "of overlay", 0.35, ratioOf},
		{"storage", "the same, digests known as in a pull", "of overlay", 0.35, ratioOf},
		{"driver", "apply an image to an empty store", "of overlay", 0.7, ratioOf},
		{"driver", "apply an image that is mostly known", "of overlay", 0.35, ratioOf},
		{"driver", "apply the same layers under other ids", "of overlay", 0.15, ratioOf},
		{"together", "put four images at once, one process", "of overlay", 1 / 1.5, ratioOf},
		{"together", "put four images at once, four processes", "of overlay", 1 / 1.5, ratioOf},
		{"storage", warm, "of overlay", 1, ratioOf},
		{"driver", "create, mount, unmount, remove", "of overlay", 1, ratioOf},
		{"storage", firstMount, "ms over warm", 10, beyond(warm)},
		{"build", "build in 20 steps", "of overlay", 0.8, ratioOf},
		{"driver", "remove the image that is left: of that, under upstream's lock", "ms", 10, millis},
		{"storage", "delete the image that is left", "of overlay", 1.5, ratioOf},
		{"storage", "delete the update, half of which is shared", "of overlay", 1, ratioOf},
		{"driver", "changes of a committed layer", "of walking", 0.1, ratioOf},
		{"driver", "changes between two images", "of walking", 0.1, ratioOf},
		{"driver", "size of a committed layer", "of walking", 0.1, ratioOf},
		{"check", "full check, hashing every object", "of sha256", 1.3, against("sha256 of every object's file, all cores")},
		{"scale", "start of the driver" + many, "ms", 5, millis},
		{"scale", "storagectl du" + many, "ms", 200, millis},
		{"cache", "page cache of ten containers that share 80 %", "of overlay", 0.3, ratioOf},
	}
	deep, shallow := fmt.Sprintf("create, mount, unmount, remove on %d layers", chainLength), "create, mount, unmount, remove on 1 layers"
	list = append(list, target{"deep", deep, "ms over one layer", 5, beyond(shallow)})
	for _, what := range []string{"pull of a small image", "pull of an image", "create, mount, unmount, remove ten containers", "remove the small image", "remove the image"} {
		list = append(list, target{"scale", what + many, "of that" + few, 1.1, against(what + few)})
	}
	return list
}

// memoryTargets compare with what containers/storage takes by itself.
func (r *report) memoryTargets(files int) []target {
	over := func(r *report, key measurement, ours, _ string) (float64, bool) {
		a, b := r.of(key, ours), r.of(key, upstreamOnly)
		return a.median(wall) - b.median(wall), len(a) > 0 && len(b) > 0
	}
	entries := func(n int) float64 { return (64<<20 + 200*float64(n)) / 1e6 }
	return []target{
		{"memory", "peak memory of putting the image", "MB over containers/storage's own", entries(41_639), over},
		{"memory", fmt.Sprintf("peak memory of putting a layer of %d files", files), "MB over containers/storage's own", entries(files + files/100), over},
	}
}

// printTargets says what was reached on each filesystem.
func (r *report) printTargets(w io.Writer, drivers []string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	var kinds []string
	for _, m := range r.Runs {
		if !slices.Contains(kinds, m.FS) {
			kinds = append(kinds, m.FS)
		}
	}
	fmt.Fprint(t, "\nlevel\twhat\ttarget")
	for _, kind := range kinds {
		fmt.Fprintf(t, "\t%s", kind)
	}
	fmt.Fprintln(t)
	for _, g := range append(targets(r.Crowd), r.memoryTargets(r.Files)...) {
		line := fmt.Sprintf("%s\t%s\t≤ %.3g %s", g.level, g.row, g.most, g.what)
		any := false
		for _, kind := range kinds {
			v, ok := g.of(r, measurement{FS: kind, Level: g.level, Row: g.row}, drivers[0], drivers[len(drivers)-1])
			switch {
			case !ok:
				line += "\t"
			case v <= g.most:
				line += fmt.Sprintf("\t%.3g", v)
				any = true
			default:
				line += fmt.Sprintf("\t%.3g (missed)", v)
				any = true
			}
		}
		if any {
			fmt.Fprintln(t, line)
		}
	}
}
