package object

import (
	"bytes"
	"slices"
	"strings"
)

// An Xattr is one extended attribute. The name is any bytes but NUL, with its
// namespace ("user.x"). OSTree drops attributes with an empty value when it reads
// a file, so no file header may have one; a dirmeta may.
type Xattr struct {
	Name  string
	Value []byte
}

// SortXattrs puts attributes into the one order that headers and dirmetas have
// them in: by the bytes of the name.
func SortXattrs(x []Xattr) {
	slices.SortFunc(x, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
}

// EqualXattrs tells if two lists have the same attributes in the same order.
func EqualXattrs(a, b []Xattr) bool {
	return slices.EqualFunc(a, b, func(x, y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

// checkXattrs returns the reason that x cannot be encoded, or "".
func checkXattrs(x []Xattr, emptyValues bool) string {
	for i := range x {
		switch {
		case x[i].Name == "" || strings.IndexByte(x[i].Name, 0) >= 0:
			return reasonAttrName
		case i > 0 && x[i-1].Name >= x[i].Name:
			return reasonAttrOrder
		case len(x[i].Value) == 0 && !emptyValues:
			return reasonAttrEmpty
		}
	}
	return ""
}

// An attribute is (ayay): the name with a NUL, the value, one framing offset.
func xattrSize(x *Xattr) int {
	body := len(x.Name) + 1 + len(x.Value)
	return body + offsetWidth(body, 1)
}

// appendXattrs appends a(ayay).
func appendXattrs(b []byte, x []Xattr) []byte {
	if len(x) == 0 {
		return b
	}
	start := len(b)
	for i := range x {
		b = append(b, x[i].Name...)
		b = append(b, 0)
		b = append(b, x[i].Value...)
		b = appendOffset(b, len(x[i].Name)+1, offsetWidth(len(x[i].Name)+1+len(x[i].Value), 1))
	}
	w, end := offsetWidth(len(b)-start, len(x)), 0
	for i := range x {
		end += xattrSize(&x[i])
		b = appendOffset(b, end, w)
	}
	return b
}

// xattrs decodes the a(ayay) that is all of s.
func (d *decoder) xattrs(s span, emptyValues bool) []Xattr {
	a := d.array(s, 1)
	if a.n == 0 {
		return nil
	}
	// One copy of the bytes for all values, which are small and live together.
	text := string(d.b[s.start:s.end])
	all := []byte(text)
	x := make([]Xattr, 0, a.n)
	for i := range a.n {
		e := d.element(a, i)
		t := d.tuple(e, 1)
		nameEnd := d.member(t, 0, e.start)
		if d.err != nil {
			return nil
		}
		name := span{e.start, nameEnd}
		if name.len() < 2 || d.b[name.end-1] != 0 {
			d.fail(name.start, reasonAttrName)
			return nil
		}
		low, high := nameEnd-s.start, t.end-s.start
		x = append(x, Xattr{Name: text[name.start-s.start : low-1], Value: all[low:high:high]})
	}
	if reason := checkXattrs(x, emptyValues); reason != "" {
		d.fail(s.start, reason)
		return nil
	}
	return x
}
