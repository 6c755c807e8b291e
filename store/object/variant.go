package object

import (
	"bytes"
	"encoding/binary"
)

// A Variant is a value in a commit's metadata: a GVariant type string and the
// value's serialized bytes.
type Variant struct {
	Type string
	Data []byte
}

// BytesVariant returns b as a byte array ("ay"). It keeps b, it does not copy.
func BytesVariant(b []byte) Variant { return Variant{"ay", b} }

// ByteVariant returns b as a byte ("y").
func ByteVariant(b byte) Variant { return Variant{"y", []byte{b}} }

// StringVariant returns s, which must be UTF-8 without NUL, as a string ("s").
func StringVariant(s string) Variant { return Variant{"s", appendText(nil, s)} }

// StringsVariant returns a list of strings ("as"), each UTF-8 without NUL.
func StringsVariant(list []string) Variant {
	var b []byte
	for _, s := range list {
		b = appendText(b, s)
	}
	w, end := offsetWidth(len(b), len(list)), 0
	for _, s := range list {
		end += len(s) + 1
		b = appendOffset(b, end, w)
	}
	return Variant{"as", b}
}

// Uint64Variant returns v as a number ("t"), big-endian as OSTree writes numbers.
func Uint64Variant(v uint64) Variant {
	return Variant{"t", binary.BigEndian.AppendUint64(nil, v)}
}

// is starts the reading of a variant that must have this type.
func (v Variant) is(typ string) (*decoder, error) {
	d := &decoder{b: v.Data}
	if v.Type != typ {
		d.fail(0, reasonWrongType)
	}
	d.normal(parseShape(typ), span{0, len(v.Data)}, 0)
	return d, d.failure()
}

// Bytes reads a BytesVariant. The result is v's own memory.
func (v Variant) Bytes() ([]byte, error) {
	if _, err := v.is("ay"); err != nil {
		return nil, err
	}
	return v.Data, nil
}

// Byte reads a ByteVariant.
func (v Variant) Byte() (byte, error) {
	if _, err := v.is("y"); err != nil {
		return 0, err
	}
	return v.Data[0], nil
}

// Text reads a StringVariant.
func (v Variant) Text() (string, error) {
	if _, err := v.is("s"); err != nil {
		return "", err
	}
	return string(v.Data[:len(v.Data)-1]), nil
}

// Strings reads a StringsVariant.
func (v Variant) Strings() ([]string, error) {
	d, err := v.is("as")
	if err != nil {
		return nil, err
	}
	a := d.array(span{0, len(v.Data)}, 1)
	list := make([]string, a.n)
	for i := range list {
		list[i] = d.text(d.element(a, i), "")
	}
	return list, d.failure()
}

// Uint64 reads a Uint64Variant.
func (v Variant) Uint64() (uint64, error) {
	if _, err := v.is("t"); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v.Data), nil
}

// check returns the reason that v cannot be encoded, or "".
func (v Variant) check() string {
	t := parseShape(v.Type)
	if t == nil {
		return reasonVariantType
	}
	d := &decoder{b: v.Data}
	if d.normal(t, span{0, len(v.Data)}, 0); d.err != nil {
		return d.err.Reason
	}
	return ""
}

// variantParts returns the type of the variant that is all of s, and the place
// of its value: value, NUL, type string.
func (d *decoder) variantParts(s span) (*shape, span) {
	if d.err != nil {
		return nil, span{}
	}
	nul := s.start + bytes.LastIndexByte(d.b[s.start:s.end], 0)
	if nul < s.start {
		d.fail(s.start, reasonVariantType)
		return nil, span{}
	}
	t := parseShape(string(d.b[nul+1 : s.end]))
	if t == nil {
		d.fail(nul+1, reasonVariantType)
	}
	return t, span{s.start, nul}
}
