package object

import "strings"

// A commit's metadata may hold values of any GVariant type, made by any program.
// OSTree takes a commit only if all of it is in normal form, so that has to be
// checked for every type.

// normal checks that s is a value of type t in normal form.
func (d *decoder) normal(t *shape, s span, depth int) {
	switch {
	case d.err != nil:
		return
	case depth > maxDepth:
		d.fail(s.start, reasonDepth)
		return
	case t.size > 0 && s.len() != t.size:
		d.fail(s.start, reasonVariantValue)
		return
	}
	switch t.kind {
	case 'b':
		if d.b[s.start] > 1 {
			d.fail(s.start, reasonVariantValue)
		}
	case 's':
		d.text(s, "")
	case 'o':
		if p := d.text(s, ""); d.err == nil && !isObjectPath(p) {
			d.fail(s.start, reasonVariantValue)
		}
	case 'g':
		if p := d.text(s, ""); d.err == nil && !isSignature(p) {
			d.fail(s.start, reasonVariantValue)
		}
	case 'v':
		inner, value := d.variantParts(s)
		if d.err == nil {
			d.normal(inner, value, depth+1)
		}
	case 'm':
		d.normalMaybe(t.members[0], s, depth+1)
	case 'a':
		d.normalArray(t.members[0], s, depth+1)
	case '(':
		d.normalTuple(t, s, depth+1)
	}
}

// A maybe is empty, or its value; a value of variable size has a zero byte after
// it, so that an empty value is not nothing.
func (d *decoder) normalMaybe(t *shape, s span, depth int) {
	if s.len() == 0 {
		return
	}
	if t.size == 0 {
		s.end--
		if d.b[s.end] != 0 {
			d.fail(s.end, reasonVariantValue)
		}
	}
	d.normal(t, s, depth)
}

func (d *decoder) normalArray(t *shape, s span, depth int) {
	switch {
	case t.size == 0:
		a := d.array(s, t.align)
		for i := 0; i < a.n && d.err == nil; i++ {
			d.normal(t, d.element(a, i), depth)
		}
	case s.len()%t.size != 0:
		d.fail(s.start, reasonVariantValue)
	case t.anyBytes:
	default:
		for at := s.start; at < s.end && d.err == nil; at += t.size {
			d.normal(t, span{at, at + t.size}, depth)
		}
	}
}

func (d *decoder) normalTuple(t *shape, s span, depth int) {
	if len(t.members) == 0 {
		if d.b[s.start] != 0 {
			d.fail(s.start, reasonPadding)
		}
		return
	}
	framing := d.tuple(s, t.offsets())
	at, offsets := s.start, 0
	for i, m := range t.members {
		at = d.pad(at, s.start, m.align, framing.end)
		end := at + m.size
		switch {
		case m.size > 0:
		case i == len(t.members)-1:
			end = framing.end
		default:
			end = d.member(framing, offsets, at)
			offsets++
		}
		if d.err == nil && end > framing.end {
			d.fail(at, reasonTruncated)
		}
		d.normal(m, span{at, end}, depth)
		if d.err != nil {
			return
		}
		at = end
	}
	if t.size > 0 {
		at = d.pad(at, s.start, t.align, framing.end)
	}
	if d.err == nil && at != framing.end {
		d.fail(at, reasonTrailing)
	}
}

const pathLetters = "_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// isObjectPath reports whether s is a D-Bus object path: "/", or names of ASCII
// letters, digits and underscores, each after a slash.
func isObjectPath(s string) bool {
	if s == "/" {
		return true
	}
	if s == "" || s[0] != '/' {
		return false
	}
	for name := range strings.SplitSeq(s[1:], "/") {
		if name == "" || strings.Trim(name, pathLetters) != "" {
			return false
		}
	}
	return true
}

// isSignature reports whether s is a sequence of complete types.
func isSignature(s string) bool {
	for s != "" {
		t, n := nextShape(s, 0)
		if t == nil {
			return false
		}
		s = s[n:]
	}
	return true
}
