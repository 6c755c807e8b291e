package object

import (
	"bytes"
	"encoding/binary"
)

// A MetadataEntry is one key of a commit's metadata.
type MetadataEntry struct {
	Key   string
	Value Variant
}

// A Commit names a tree and says things about it. GVariant type
// (a{sv}aya(say)sstayay), of which the third member is always empty.
//
// The order of Metadata is part of the commit; OSTree leaves it free. A zero
// Parent means none. Timestamp is in seconds.
type Commit struct {
	Metadata   []MetadataEntry
	Parent     Checksum
	Subject    string
	Body       string
	Timestamp  uint64
	Tree, Meta Checksum
}

// Type returns TypeCommit.
func (*Commit) Type() Type { return TypeCommit }

// Lookup returns the first value with this key.
func (c *Commit) Lookup(key string) (Variant, bool) {
	for i := range c.Metadata {
		if c.Metadata[i].Key == key {
			return c.Metadata[i].Value, true
		}
	}
	return Variant{}, false
}

// check returns the reason that c cannot be encoded, or "".
func (c *Commit) check() string {
	for i := range c.Metadata {
		e := &c.Metadata[i]
		if e.Key == "" {
			return reasonKey
		}
		if reason := checkText(e.Key); reason != "" {
			return reason
		}
		if reason := e.Value.check(); reason != "" {
			return reason
		}
	}
	for _, s := range []string{c.Subject, c.Body} {
		if reason := checkText(s); reason != "" {
			return reason
		}
	}
	if c.Tree.IsZero() || c.Meta.IsZero() {
		return reasonZeroChecksum
	}
	return ""
}

// numberAlign is the alignment of 64-bit numbers and of variants, and so of
// metadata entries.
const numberAlign = 8

// AppendBinary appends the object's bytes to b.
func (c *Commit) AppendBinary(b []byte) ([]byte, error) {
	if reason := c.check(); reason != "" {
		return b, &FormatError{Type: TypeCommit, Offset: -1, Reason: reason}
	}
	start := len(b)
	b = appendMetadata(b, c.Metadata)
	metadata := len(b) - start
	if !c.Parent.IsZero() {
		b = append(b, c.Parent[:]...)
	}
	related := len(b) - start
	b = appendText(b, c.Subject)
	subject := len(b) - start
	b = appendText(b, c.Body)
	body := len(b) - start
	b = appendPadding(b, start, numberAlign)
	b = binary.BigEndian.AppendUint64(b, c.Timestamp)
	b = append(b, c.Tree[:]...)
	tree := len(b) - start
	b = append(b, c.Meta[:]...)
	ends := [...]int{tree, body, subject, related, related, metadata}
	w := offsetWidth(len(b)-start, len(ends))
	for _, end := range ends {
		b = appendOffset(b, end, w)
	}
	return b, nil
}

// appendMetadata appends a{sv}, which must begin at a multiple of 8.
func appendMetadata(b []byte, list []MetadataEntry) []byte {
	start := len(b)
	ends := make([]int, len(list))
	for i := range list {
		e := &list[i]
		b = appendPadding(b, start, numberAlign)
		entry := len(b)
		b = appendText(b, e.Key)
		b = appendPadding(b, entry, numberAlign)
		b = append(b, e.Value.Data...)
		b = append(b, 0)
		b = append(b, e.Value.Type...)
		b = appendOffset(b, len(e.Key)+1, offsetWidth(len(b)-entry, 1))
		ends[i] = len(b) - start
	}
	w := offsetWidth(len(b)-start, len(list))
	for _, end := range ends {
		b = appendOffset(b, end, w)
	}
	return b
}

// MarshalBinary returns the object's bytes.
func (c *Commit) MarshalBinary() ([]byte, error) { return c.AppendBinary(nil) }

// UnmarshalBinary replaces c by the commit that b encodes.
func (c *Commit) UnmarshalBinary(b []byte) error {
	d := &decoder{b: b, typ: TypeCommit}
	t := d.tuple(span{0, len(b)}, 6)
	metadata := d.member(t, 0, 0)
	parent := d.member(t, 1, metadata)
	related := d.member(t, 2, parent)
	subject := d.member(t, 3, related)
	body := d.member(t, 4, subject)
	number := d.pad(body, 0, numberAlign, t.end)
	if d.err == nil && number+8 > t.end {
		d.fail(number, reasonTruncated)
	}
	tree := d.member(t, 5, number+8)
	if d.err != nil {
		return d.err
	}
	if related != parent {
		d.fail(parent, reasonRelated)
	}
	got := Commit{
		Metadata:  d.metadata(span{0, metadata}),
		Subject:   d.text(span{related, subject}, ""),
		Body:      d.text(span{subject, body}, ""),
		Timestamp: binary.BigEndian.Uint64(b[number:]),
		Tree:      d.checksum(span{number + 8, tree}),
		Meta:      d.checksum(span{tree, t.end}),
	}
	if metadata != parent {
		got.Parent = d.checksum(span{metadata, parent})
	}
	if d.err != nil {
		return d.err
	}
	*c = got
	return nil
}

// metadata decodes the a{sv} that is all of s.
func (d *decoder) metadata(s span) []MetadataEntry {
	a := d.array(s, numberAlign)
	if a.n == 0 {
		return nil
	}
	all := bytes.Clone(d.b[s.start:s.end]) // one copy for all values
	list := make([]MetadataEntry, a.n)
	for i := range list {
		e := d.element(a, i)
		t := d.tuple(e, 1)
		end := d.member(t, 0, e.start)
		key := d.text(span{e.start, end}, "")
		if d.err == nil && key == "" {
			d.fail(e.start, reasonKey)
		}
		value := d.pad(end, e.start, numberAlign, t.end)
		typ, place := d.variantParts(span{value, t.end})
		d.normal(typ, place, 0)
		if d.err != nil {
			return nil
		}
		low, high := place.start-s.start, place.end-s.start
		list[i] = MetadataEntry{key, Variant{string(d.b[place.end+1 : t.end]), all[low:high:high]}}
	}
	return list
}
