package object

import "encoding/binary"

// Framing is how GVariant says where the members of a container end: offsets of
// equal width at the container's end, little-endian, relative to its start. An
// array has one for each element, in order; a tuple has one for each member of
// variable size but the last, in reverse order. The width is the smallest one
// that can say the container's size, offsets included.

// offsetWidth returns the width of n framing offsets after body bytes.
func offsetWidth(body, n int) int {
	switch {
	case n == 0:
		return 0
	case body+n <= 0xff:
		return 1
	case body+2*n <= 0xffff:
		return 2
	case uint64(body)+4*uint64(n) <= 0xffffffff:
		return 4
	}
	return 8
}

// sizeWidth returns the width of the offsets in a container of size bytes.
func sizeWidth(size int) int {
	switch {
	case size <= 0xff:
		return 1
	case size <= 0xffff:
		return 2
	case uint64(size) <= 0xffffffff:
		return 4
	}
	return 8
}

func appendOffset(b []byte, v, width int) []byte {
	switch width {
	case 1:
		return append(b, byte(v))
	case 2:
		return binary.LittleEndian.AppendUint16(b, uint16(v))
	case 4:
		return binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(b, uint64(v))
}

// alignUp returns v rounded up to a multiple of align, a power of two.
func alignUp(v, align int) int { return (v + align - 1) &^ (align - 1) }

// appendPadding appends zeros until b, which began to be this container at
// start, is aligned.
func appendPadding(b []byte, start, align int) []byte {
	for (len(b)-start)&(align-1) != 0 {
		b = append(b, 0)
	}
	return b
}

// A span is a range of the input of a decoder.
type span struct{ start, end int }

func (s span) len() int { return s.end - s.start }

// A decoder walks serialized bytes. It keeps its first error and turns all that
// follows into nothing, so that callers test err once for each step that they
// depend on.
type decoder struct {
	b   []byte
	typ Type
	err *FormatError
}

func (d *decoder) fail(offset int, reason string) {
	if d.err == nil {
		d.err = &FormatError{Type: d.typ, Offset: offset, Reason: reason}
	}
}

// failure returns the decoder's error as a plain nil when there is none.
func (d *decoder) failure() error {
	if d.err != nil {
		return d.err
	}
	return nil
}

func (d *decoder) offset(at, width int) int {
	var v uint64
	switch width {
	case 1:
		return int(d.b[at])
	case 2:
		v = uint64(binary.LittleEndian.Uint16(d.b[at:]))
	case 4:
		v = uint64(binary.LittleEndian.Uint32(d.b[at:]))
	default:
		v = binary.LittleEndian.Uint64(d.b[at:])
	}
	if v > uint64(len(d.b)) {
		return len(d.b) + 1 // out of every range
	}
	return int(v)
}

// An array is a decoded framing of an array with elements of variable size.
type array struct {
	start, body int // where the elements start, and the offsets
	n, width    int
	align       int
}

// array reads the framing of the array that is all of s and whose elements have
// this alignment.
func (d *decoder) array(s span, align int) array {
	size := s.len()
	if d.err != nil || size == 0 {
		return array{}
	}
	w := sizeWidth(size)
	if size < w {
		d.fail(s.start, reasonTruncated)
		return array{}
	}
	body := d.offset(s.end-w, w)
	switch {
	case body > size-w:
		d.fail(s.end-w, reasonOffset)
		return array{}
	case (size-body)%w != 0:
		d.fail(s.end-w, reasonArrayLength)
		return array{}
	}
	n := (size - body) / w
	if offsetWidth(body, n) != w {
		d.fail(s.end-w, reasonWidth)
		return array{}
	}
	return array{start: s.start, body: s.start + body, n: n, width: w, align: align}
}

// element returns the place of the i-th element. Calls for all i in order check
// the framing whole.
func (d *decoder) element(a array, i int) span {
	if d.err != nil {
		return span{}
	}
	start := a.start
	if i > 0 {
		start += d.offset(a.body+(i-1)*a.width, a.width)
	}
	end := a.start + d.offset(a.body+i*a.width, a.width)
	start = d.pad(start, a.start, a.align, a.body)
	if d.err == nil && (end < start || end > a.body) {
		d.fail(a.body+i*a.width, reasonOffset)
	}
	if d.err != nil {
		return span{}
	}
	return span{start, end}
}

// pad skips the padding at pos, in a container that starts at start, and checks
// that it is zero and before limit.
func (d *decoder) pad(pos, start, align, limit int) int {
	for (pos-start)&(align-1) != 0 {
		switch {
		case d.err != nil:
			return pos
		case pos >= limit:
			d.fail(pos, reasonTruncated)
			return pos
		case d.b[pos] != 0:
			d.fail(pos, reasonPadding)
			return pos
		}
		pos++
	}
	return pos
}

// A tuple is the decoded framing of a tuple: its place without the offsets.
type tuple struct {
	span
	n, width int
	all      int // where the offsets end
}

// tuple reads the framing of the tuple that is all of s and has n offsets.
func (d *decoder) tuple(s span, n int) tuple {
	if d.err != nil {
		return tuple{}
	}
	if n == 0 {
		return tuple{span: s, all: s.end}
	}
	w := sizeWidth(s.len())
	body := s.len() - n*w
	switch {
	case body < 0:
		d.fail(s.start, reasonTruncated)
		return tuple{}
	case offsetWidth(body, n) != w:
		d.fail(s.end-w, reasonWidth)
		return tuple{}
	}
	return tuple{span{s.start, s.start + body}, n, w, s.end}
}

// member returns where the member with the i-th offset ends. It starts at start.
func (d *decoder) member(t tuple, i, start int) int {
	if d.err != nil {
		return start
	}
	at := t.all - (i+1)*t.width
	end := t.start + d.offset(at, t.width)
	if end < start || end > t.end {
		d.fail(at, reasonOffset)
		return start
	}
	return end
}
