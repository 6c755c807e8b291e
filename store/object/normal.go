package object

import "strings"

// A commit's metadata may hold values of any GVariant type, made by any program.
// OSTree takes a commit only if all of it is in normal form, so that has to be
// checked for every type.

// maxDepth is how deep containers may be nested; GLib has the same limit.
const maxDepth = 128

// typeLength returns the length of the one complete type that s begins with, or
// 0 if there is none.
func typeLength(s string, depth int) int {
	if s == "" || depth > maxDepth {
		return 0
	}
	switch s[0] {
	case 'a', 'm':
		if n := typeLength(s[1:], depth+1); n > 0 {
			return 1 + n
		}
		return 0
	case '(':
		for at := 1; at < len(s); {
			if s[at] == ')' {
				return at + 1
			}
			n := typeLength(s[at:], depth+1)
			if n == 0 {
				return 0
			}
			at += n
		}
		return 0
	case '{':
		if len(s) < 4 || strings.IndexByte("bynqiuxthdsog", s[1]) < 0 {
			return 0
		}
		n := typeLength(s[2:], depth+1)
		if n == 0 || 2+n >= len(s) || s[2+n] != '}' {
			return 0
		}
		return 3 + n
	}
	if strings.IndexByte("bynqiuxthdsogv", s[0]) < 0 {
		return 0
	}
	return 1
}

// typeShape returns the alignment of a valid type, and its size if that is
// fixed, else 0.
func typeShape(typ string) (align, size int) {
	switch typ[0] {
	case 'b', 'y':
		return 1, 1
	case 'n', 'q':
		return 2, 2
	case 'i', 'u', 'h':
		return 4, 4
	case 'x', 't', 'd':
		return 8, 8
	case 'v':
		return 8, 0
	case 'a', 'm':
		align, _ = typeShape(typ[1:])
		return align, 0
	case '(', '{':
		return tupleShape(typ[1 : len(typ)-1])
	}
	return 1, 0 // s, o, g
}

func tupleShape(members string) (align, size int) {
	if members == "" {
		return 1, 1 // the empty tuple is one zero byte
	}
	align, fixed := 1, true
	for members != "" {
		n := typeLength(members, 0)
		a, s := typeShape(members[:n])
		align = max(align, a)
		fixed = fixed && s > 0
		size = alignUp(size, a) + s
		members = members[n:]
	}
	if !fixed {
		return align, 0
	}
	return align, alignUp(size, align)
}

// normal checks that s is a value of this valid type in normal form.
func (d *decoder) normal(typ string, s span, depth int) {
	if d.err != nil {
		return
	}
	if depth > maxDepth {
		d.fail(s.start, reasonDepth)
		return
	}
	if _, size := typeShape(typ); size > 0 && s.len() != size {
		d.fail(s.start, reasonVariantValue)
		return
	}
	switch typ[0] {
	case 'b':
		if d.b[s.start] > 1 {
			d.fail(s.start, reasonVariantValue)
		}
	case 's':
		d.text(s, "")
	case 'o':
		if !isObjectPath(d.text(s, "")) {
			d.fail(s.start, reasonVariantValue)
		}
	case 'g':
		if !isSignature(d.text(s, "")) {
			d.fail(s.start, reasonVariantValue)
		}
	case 'v':
		inner, value := d.variantParts(s)
		if d.err == nil {
			d.normal(inner, value, depth+1)
		}
	case 'm':
		d.normalMaybe(typ[1:], s, depth+1)
	case 'a':
		d.normalArray(typ[1:], s, depth+1)
	case '(', '{':
		d.normalTuple(typ[1:len(typ)-1], s, depth+1)
	}
}

// A maybe is empty, or its value; a value of variable size has a zero byte after
// it, so that an empty value is not nothing.
func (d *decoder) normalMaybe(typ string, s span, depth int) {
	if s.len() == 0 {
		return
	}
	if _, size := typeShape(typ); size == 0 {
		if d.b[s.end-1] != 0 {
			d.fail(s.end-1, reasonVariantValue)
		}
		s.end--
	}
	d.normal(typ, s, depth)
}

func (d *decoder) normalArray(typ string, s span, depth int) {
	align, size := typeShape(typ)
	if size == 0 {
		a := d.array(s, align)
		for i := 0; i < a.n && d.err == nil; i++ {
			d.normal(typ, d.element(a, i), depth)
		}
		return
	}
	if s.len()%size != 0 {
		d.fail(s.start, reasonVariantValue)
		return
	}
	if strings.IndexByte("ynqiuhxtd", typ[0]) >= 0 {
		return // any bytes are a number
	}
	for at := s.start; at < s.end && d.err == nil; at += size {
		d.normal(typ, span{at, at + size}, depth)
	}
}

// countOffsets returns how many members of a tuple have a framing offset: those
// of variable size, but never the last.
func countOffsets(members string) (n int) {
	for members != "" {
		l := typeLength(members, 0)
		_, size := typeShape(members[:l])
		if members = members[l:]; size == 0 && members != "" {
			n++
		}
	}
	return n
}

func (d *decoder) normalTuple(members string, s span, depth int) {
	if members == "" {
		if d.b[s.start] != 0 {
			d.fail(s.start, reasonPadding)
		}
		return
	}
	align, fixed := tupleShape(members)
	t := d.tuple(s, countOffsets(members))
	at, offsets := s.start, 0
	for members != "" && d.err == nil {
		n := typeLength(members, 0)
		a, size := typeShape(members[:n])
		at = d.pad(at, s.start, a, t.end)
		end := at + size
		switch {
		case size > 0:
		case n == len(members):
			end = t.end
		default:
			end = d.member(t, offsets, at)
			offsets++
		}
		if end > t.end || end < at {
			d.fail(at, reasonTruncated)
			return
		}
		d.normal(members[:n], span{at, end}, depth)
		at, members = end, members[n:]
	}
	if fixed > 0 {
		at = d.pad(at, s.start, align, t.end)
	}
	if d.err == nil && at != t.end {
		d.fail(at, reasonTrailing)
	}
}

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
		if name == "" || strings.Trim(name, "_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return false
		}
	}
	return true
}

// isSignature reports whether s is a sequence of complete types.
func isSignature(s string) bool {
	for s != "" {
		n := typeLength(s, 0)
		if n == 0 {
			return false
		}
		s = s[n:]
	}
	return true
}
