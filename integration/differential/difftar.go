package differential

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// CompareTars compares two layer tars entry by entry, in order, with every
// header field. Times that the rules let pass are taken as equal; if there are
// none, the tars must be the same bytes.
func CompareTars(want, got []byte, rules Rules) ([]Difference, error) {
	if bytes.Equal(want, got) {
		return nil, nil
	}
	w, err := headers(want)
	if err != nil {
		return nil, fmt.Errorf("read the oracle's tar: %w", err)
	}
	g, err := headers(got)
	if err != nil {
		return []Difference{{What: "tar", Want: "readable", Got: err.Error()}}, nil
	}
	var wn, gn []string
	for i := range w {
		wn = append(wn, w[i].Name)
	}
	for i := range g {
		gn = append(gn, g[i].Name)
	}
	if !slices.Equal(wn, gn) {
		if out := compareLists(slices.Sorted(slices.Values(wn)), slices.Sorted(slices.Values(gn))); len(out) > 0 {
			return out, nil
		}
		return compareOrder(wn, gn), nil
	}
	var out []Difference
	excused := false
	for i := range w {
		list, late := compareHeaders(&w[i], &g[i], rules)
		out = append(out, list...)
		excused = excused || late
	}
	if len(out) == 0 && !excused {
		out = append(out, Difference{What: "tar", Want: fmt.Sprintf("%d bytes", len(want)), Got: fmt.Sprintf("%d bytes of other headers or padding", len(got))})
	}
	return out, nil
}

// header is a tar header and the body behind it.
type header struct {
	tar.Header
	body []byte
}

func headers(b []byte) ([]header, error) {
	var out []header
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		out = append(out, header{*h, body})
	}
}

// compareHeaders also reports whether a time differed that the rules excuse.
func compareHeaders(w, g *header, rules Rules) (out []Difference, excused bool) {
	differ := func(what string, want, got any) {
		if want != got {
			out = append(out, Difference{Path: w.Name, What: what, Want: fmt.Sprintf("%v", want), Got: fmt.Sprintf("%v", got)})
		}
	}
	if isWhiteout(w.Name) {
		// Overlay keeps the owner of a whiteout's entry. Nobody can see it, and our
		// commits have one form for all whiteouts.
		excused = w.Uid != g.Uid || w.Gid != g.Gid
		g.Uid, g.Gid, g.Format = w.Uid, w.Gid, w.Format
		g.PAXRecords = maps.Clone(g.PAXRecords)
		for _, key := range []string{"uid", "gid"} {
			delete(w.PAXRecords, key)
			delete(g.PAXRecords, key)
		}
	}
	differ("type", string(w.Typeflag), string(g.Typeflag))
	differ("link", w.Linkname, g.Linkname)
	differ("mode", fmt.Sprintf("%#o", w.Mode), fmt.Sprintf("%#o", g.Mode))
	differ("uid", w.Uid, g.Uid)
	differ("gid", w.Gid, g.Gid)
	differ("user", w.Uname, g.Uname)
	differ("group", w.Gname, g.Gname)
	differ("size", w.Size, g.Size)
	differ("major", w.Devmajor, g.Devmajor)
	differ("minor", w.Devminor, g.Devminor)
	differ("format", w.Format, g.Format)
	if !bytes.Equal(w.body, g.body) {
		differ("body", len(w.body), fmt.Sprintf("%d, other bytes", len(g.body)))
	}
	wp, gp := maps.Clone(w.PAXRecords), maps.Clone(g.PAXRecords)
	if !w.ModTime.Equal(g.ModTime) {
		if rules.excuses(w, g) {
			excused = true
			delete(wp, "mtime")
			delete(gp, "mtime")
		} else {
			differ("mtime", w.ModTime.UTC().Format(time.RFC3339Nano), g.ModTime.UTC().Format(time.RFC3339Nano))
		}
	}
	if !maps.Equal(wp, gp) {
		differ("records", fmt.Sprintf("%q", wp), fmt.Sprintf("%q", gp))
	}
	return out, excused
}

func (r *Rules) excuses(w, g *header) bool {
	late := !r.Started.IsZero() && !w.ModTime.Before(r.Started.Truncate(time.Second)) && !g.ModTime.Before(r.Started.Truncate(time.Second))
	switch w.Typeflag {
	case tar.TypeDir:
		return late || r.Implied[clean(w.Name)]
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
		return late || r.SharedTimes || isWhiteout(w.Name) // overlay gives its whiteouts the time of extraction
	}
	return late
}

func isWhiteout(name string) bool { return strings.HasPrefix(path.Base(clean(name)), ".wh.") }

// compareLists compares two sorted lists.
func compareLists(want, got []string) []Difference {
	var out []Difference
	for _, l := range want {
		if _, ok := slices.BinarySearch(got, l); !ok {
			out = append(out, Difference{Path: l, What: "line", Want: "it", Got: "nothing"})
		}
	}
	for _, l := range got {
		if _, ok := slices.BinarySearch(want, l); !ok {
			out = append(out, Difference{Path: l, What: "line", Want: "nothing", Got: "it"})
		}
	}
	if len(out) == 0 && len(want) != len(got) {
		out = append(out, Difference{What: "lines", Want: fmt.Sprintf("%q", want), Got: fmt.Sprintf("%q", got)})
	}
	return out
}

func compareOrder(want, got []string) []Difference {
	for i := range want {
		if want[i] != got[i] {
			return []Difference{{Path: want[i], What: "place in the tar", Want: fmt.Sprint(i), Got: fmt.Sprintf("%q there", got[i])}}
		}
	}
	return nil
}
