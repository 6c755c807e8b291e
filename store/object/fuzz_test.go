package object_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// fuzzDecode gives f all vectors of a type and checks that whatever decodes
// encodes to the same bytes.
func fuzzDecode(f *testing.F, typ string) {
	for _, bad := range []bool{false, true} {
		for _, path := range vectors(f, bad) {
			if v := sections(f, path); v["type"] == typ {
				f.Add(unhex(f, v["hex"]))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		roundTrip(t, newObject(t, typ), b)
		// And the other way: a value made of the same bytes, by any reading.
		v := compose(typ, b)
		raw, err := v.AppendBinary([]byte("before"))
		if err != nil {
			return
		}
		raw = raw[len("before"):]
		again := newObject(t, typ)
		if err := again.UnmarshalBinary(raw); err != nil {
			t.Fatalf("decode %x, which %+v encodes to: %v", raw, v, err)
		}
		if !equal(again, v) {
			t.Fatalf("decoded %+v from what encodes %+v", again, v)
		}
		roundTrip(t, newObject(t, typ), raw)
	})
}

// roundTrip decodes b into v; if that succeeds, v must encode to b.
func roundTrip(t *testing.T, v codec, b []byte) {
	t.Helper()
	if v.UnmarshalBinary(b) != nil {
		return
	}
	raw, err := v.MarshalBinary()
	if err != nil {
		t.Fatalf("encode what was decoded from %x: %v", b, err)
	}
	if !bytes.Equal(raw, b) {
		t.Fatalf("decoded %x, which encodes to %x", b, raw)
	}
}

// FuzzDirTree fuzzes directories.
func FuzzDirTree(f *testing.F) { fuzzDecode(f, "dirtree") }

// FuzzDirMeta fuzzes directory metadata.
func FuzzDirMeta(f *testing.F) { fuzzDecode(f, "dirmeta") }

// FuzzCommit fuzzes commits, and with them values of every type.
func FuzzCommit(f *testing.F) { fuzzDecode(f, "commit") }

// FuzzFileHeader fuzzes headers of files and symlinks.
func FuzzFileHeader(f *testing.F) { fuzzDecode(f, "file") }

// A reader makes values of bytes. It never ends: after the last byte come zeros.
type reader struct{ b []byte }

func (r *reader) take(n int) []byte {
	out := make([]byte, n)
	r.b = r.b[copy(out, r.b):]
	return out
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

// text returns a string: short, or now and then one that widens the offsets.
func (r *reader) text() string {
	n := int(r.byte())
	if n < 250 {
		return string(r.take(n % 8))
	}
	return strings.Repeat(string(r.take(1)), n*300)
}

func (r *reader) sum() (c object.Checksum) {
	copy(c[:], r.take(4))
	c[31] = 1
	return c
}

func (r *reader) xattrs() (x []object.Xattr) {
	for range r.byte() % 4 {
		x = append(x, object.Xattr{Name: r.text(), Value: []byte(r.text())})
	}
	object.SortXattrs(x)
	return x
}

func (r *reader) variant() object.Variant {
	switch r.byte() % 6 {
	case 0:
		return object.BytesVariant([]byte(r.text()))
	case 1:
		return object.ByteVariant(r.byte())
	case 2:
		return object.StringVariant(r.text())
	case 3:
		return object.StringsVariant([]string{r.text(), r.text(), r.text()}[:r.byte()%4])
	case 4:
		return object.Uint64Variant(uint64(r.uint32()) << 7)
	}
	return object.Variant{Type: r.text(), Data: []byte(r.text())}
}

// compose makes a value of a type from any bytes. Most of them encode.
func compose(typ string, b []byte) codec {
	r := &reader{b}
	switch typ {
	case "dirtree":
		t := &object.DirTree{}
		for range r.byte() % 40 {
			t.Files = append(t.Files, object.TreeFile{Name: "f" + r.text(), Checksum: r.sum()})
		}
		for range r.byte() % 40 {
			t.Dirs = append(t.Dirs, object.TreeDir{Name: r.text() + "d", Tree: r.sum(), Meta: r.sum()})
		}
		slices.SortFunc(t.Files, func(a, b object.TreeFile) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(t.Dirs, func(a, b object.TreeDir) int { return strings.Compare(a.Name, b.Name) })
		return t
	case "dirmeta":
		return &object.DirMeta{UID: r.uint32(), GID: r.uint32(), Mode: 0o40000 | r.uint32()&0o7777, Xattrs: r.xattrs()}
	case "commit":
		c := &object.Commit{Subject: r.text(), Body: r.text(), Timestamp: uint64(r.uint32()), Tree: r.sum(), Meta: r.sum()}
		for range r.byte() % 5 {
			c.Metadata = append(c.Metadata, object.MetadataEntry{Key: r.text(), Value: r.variant()})
		}
		if r.byte()%2 == 1 {
			c.Parent = r.sum()
		}
		return c
	}
	h := &object.FileHeader{UID: r.uint32(), GID: r.uint32(), Mode: 0o100000 | r.uint32()&0o7777, Xattrs: r.xattrs()}
	if r.byte()%2 == 1 {
		h.Mode, h.Target = 0o120777, r.text()
	}
	return h
}

// FuzzName checks that a name has one spelling.
func FuzzName(f *testing.F) {
	hexa := strings.Repeat("0f", 32)
	for _, s := range []string{hexa + ".file", hexa + ".dirtree", hexa, strings.ToUpper(hexa) + ".file", "0f/" + hexa[2:] + ".commit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := object.ParseName(s); err == nil && n.String() != s {
			t.Errorf("%s parses, but is spelt %s", strconv.Quote(s), n)
		}
		if n, err := object.ParseLoosePath(s); err == nil && n.LoosePath() != s {
			t.Errorf("%s parses, but is spelt %s", strconv.Quote(s), n.LoosePath())
		}
		if c, err := object.ParseChecksum(s); err == nil && (c.String() != s || !utf8.ValidString(s)) {
			t.Errorf("%s parses, but is spelt %s", strconv.Quote(s), c)
		}
	})
}
