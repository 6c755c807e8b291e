package object

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// text returns the string that is all of s: UTF-8 and a NUL. whole is the
// decoder's input as a string, or "" to copy only this string.
func (d *decoder) text(s span, whole string) string {
	if d.err != nil {
		return ""
	}
	if s.len() == 0 || bytes.IndexByte(d.b[s.start:s.end], 0) != s.len()-1 {
		d.fail(s.start, reasonNUL)
		return ""
	}
	raw := d.b[s.start : s.end-1]
	if !utf8.Valid(raw) {
		d.fail(s.start, reasonUTF8)
		return ""
	}
	if whole != "" {
		return whole[s.start : s.end-1]
	}
	return string(raw)
}

// checkText returns the reason that s cannot be a GVariant string, or "".
func checkText(s string) string {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return reasonNUL
	case !utf8.ValidString(s):
		return reasonUTF8
	}
	return ""
}

func appendText(b []byte, s string) []byte { return append(append(b, s...), 0) }

// checksum returns the checksum that is all of s.
func (d *decoder) checksum(s span) (c Checksum) {
	switch {
	case d.err != nil:
	case s.len() != len(c):
		d.fail(s.start, reasonChecksum)
	default:
		if copy(c[:], d.b[s.start:s.end]); c.IsZero() {
			d.fail(s.start, reasonZeroChecksum)
		}
	}
	return c
}
