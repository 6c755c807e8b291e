// Package differential compares the ostree driver with the overlay driver of
// containers/storage: it makes layer chains, applies each under both, and
// compares everything that a process could see in the mounted roots, and
// everything that containers/storage reads back.
//
// The overlay driver is the oracle. What the two may differ in is in type Rules,
// and nowhere else.
package differential

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Entry is one entry of a layer's tar.
type Entry struct {
	Name         string // as in the tar: spelling, leading "./" and trailing "/" included
	Type         byte   // tar.TypeReg and so on
	Mode         int64  // permission and suid bits
	UID, GID     int
	Major, Minor int64 // of devices
	Link         string
	Body         []byte
	MTime        time.Time
	Xattrs       map[string]string // raw values by name
	GNU          bool              // GNU headers, which have neither attributes nor nanoseconds
}

// Layer is the content of one layer's tar, in order.
type Layer []Entry

// Chain is a stack of layers, lowest first.
type Chain []Layer

// xattrRecord begins the PAX records that hold extended attributes.
const xattrRecord = "SCHILY.xattr."

// Tar returns the layer as an uncompressed tar.
func (l Layer) Tar() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range l {
		e := &l[i]
		h := e.header()
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write the header of %q: %w", e.Name, err)
		}
		if e.Type == tar.TypeReg {
			if _, err := w.Write(e.Body); err != nil {
				return nil, fmt.Errorf("write the body of %q: %w", e.Name, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (e *Entry) header() *tar.Header {
	h := &tar.Header{
		Name: e.Name, Typeflag: e.Type, Linkname: e.Link, Mode: e.Mode, Uid: e.UID, Gid: e.GID,
		Devmajor: e.Major, Devminor: e.Minor, ModTime: e.MTime, Format: tar.FormatPAX,
	}
	if e.Type == tar.TypeReg {
		h.Size = int64(len(e.Body))
	}
	if e.GNU && len(e.Xattrs) == 0 {
		h.Format = tar.FormatGNU
		h.ModTime = e.MTime.Truncate(time.Second)
		return h
	}
	if len(e.Xattrs) > 0 {
		h.PAXRecords = map[string]string{}
		for name, value := range e.Xattrs {
			h.PAXRecords[xattrRecord+name] = value
		}
	}
	return h
}

// ReadLayer is the reverse of Tar, for tars that others wrote. It keeps what
// this package compares.
func ReadLayer(r io.Reader) (Layer, error) {
	var l Layer
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return nil, err
		}
		e := Entry{
			Name: h.Name, Type: h.Typeflag, Mode: h.Mode, UID: h.Uid, GID: h.Gid,
			Major: h.Devmajor, Minor: h.Devminor, Link: h.Linkname, MTime: h.ModTime,
		}
		for record, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(record, xattrRecord); ok {
				if e.Xattrs == nil {
					e.Xattrs = map[string]string{}
				}
				e.Xattrs[name] = value
			}
		}
		if e.Body, err = io.ReadAll(tr); err != nil {
			return nil, fmt.Errorf("read the body of %q: %w", h.Name, err)
		}
		l = append(l, e)
	}
}

// String is the entry on one line, for reports.
func (e *Entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %04o %d:%d %s %q", e.Type, e.Mode, e.UID, e.GID, formatTime(e.MTime.Unix(), int64(e.MTime.Nanosecond())), shorten(e.Name))
	switch e.Type {
	case tar.TypeReg:
		fmt.Fprintf(&b, " %d bytes", len(e.Body))
		if len(e.Body) > 0 {
			fmt.Fprintf(&b, " %q", shorten(string(e.Body[:min(len(e.Body), 24)])))
		}
	case tar.TypeLink, tar.TypeSymlink:
		fmt.Fprintf(&b, " -> %q", shorten(e.Link))
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " %d,%d", e.Major, e.Minor)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		fmt.Fprintf(&b, " %s=%q", name, shorten(e.Xattrs[name]))
	}
	if e.GNU {
		b.WriteString(" (GNU)")
	}
	return b.String()
}

// String lists the layers with all their entries.
func (c Chain) String() string {
	var b strings.Builder
	for i, l := range c {
		fmt.Fprintf(&b, "layer %d:\n", i)
		for j := range l {
			fmt.Fprintf(&b, "  %s\n", &l[j])
		}
	}
	return b.String()
}

// shorten keeps reports readable where names and values are at their limits.
func shorten(s string) string {
	if len(s) <= 200 {
		return s
	}
	return fmt.Sprintf("%s...(%d bytes)...%s", s[:60], len(s), s[len(s)-60:])
}

func formatTime(sec, nsec int64) string { return fmt.Sprintf("%d.%09d", sec, nsec) }
