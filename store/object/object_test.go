package object_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/store/object"
)

const hexa = "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b"

func parse(t testing.TB, s string) object.Checksum {
	t.Helper()
	c, err := object.ParseChecksum(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestName(t *testing.T) {
	c := parse(t, hexa)
	for typ, ext := range map[object.Type]string{
		object.TypeFile: "file", object.TypeDirTree: "dirtree", object.TypeDirMeta: "dirmeta", object.TypeCommit: "commit",
	} {
		n := object.Name{Checksum: c, Type: typ}
		if got := n.String(); got != hexa+"."+ext {
			t.Errorf("String gives %s", got)
		}
		if got := n.LoosePath(); got != "44/"+hexa[2:]+"."+ext {
			t.Errorf("LoosePath gives %s", got)
		}
		if got, err := object.ParseName(n.String()); err != nil || got != n {
			t.Errorf("ParseName gives %v, %v", got, err)
		}
		if got, err := object.ParseLoosePath(n.LoosePath()); err != nil || got != n {
			t.Errorf("ParseLoosePath gives %v, %v", got, err)
		}
	}
	if got := object.Type(9).String(); got != "unknown" {
		t.Errorf("an unknown type is %q", got)
	}
}

func TestNameRefused(t *testing.T) {
	for _, s := range []string{
		"", hexa, hexa + ".", hexa + ".filez", hexa + ".commitmeta", hexa + ".unknown", hexa[1:] + ".file", hexa + "0.file",
		strings.ToUpper(hexa) + ".file", "g" + hexa[1:] + ".file", hexa + ".file.file", " " + hexa + ".file",
	} {
		if n, err := object.ParseName(s); err == nil {
			t.Errorf("%q parses as %s", s, n)
		}
	}
	for _, s := range []string{"", "44", hexa + ".file", "44/" + hexa + ".file", "44//" + hexa[2:] + ".file"} {
		if n, err := object.ParseLoosePath(s); err == nil {
			t.Errorf("%q parses as the path of %s", s, n)
		}
	}
}

func TestChecksum(t *testing.T) {
	c := parse(t, hexa)
	if c.IsZero() || !(object.Checksum{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	text, err := c.MarshalText()
	if err != nil || string(text) != hexa {
		t.Errorf("MarshalText gives %s, %v", text, err)
	}
	var d object.Checksum
	if err := d.UnmarshalText(text); err != nil || d != c {
		t.Errorf("UnmarshalText gives %s, %v", d, err)
	}
	if d[31]++; c.Compare(d) != -1 || d.Compare(c) != 1 || c.Compare(c) != 0 {
		t.Error("Compare is wrong")
	}
	if (object.Name{Checksum: c, Type: 1}).Compare(object.Name{Checksum: c, Type: 2}) != -1 {
		t.Error("Compare of names ignores the type")
	}
}

// TestEncodeRefuses names a reason for each value that is no object.
func TestEncodeRefuses(t *testing.T) {
	c := parse(t, hexa)
	long := []object.Xattr{{Name: "user.b", Value: []byte("1")}, {Name: "user.a", Value: []byte("1")}}
	empty := []object.Xattr{{Name: "user.a"}}
	file := func(names ...string) (list []object.TreeFile) {
		for _, n := range names {
			list = append(list, object.TreeFile{Name: n, Checksum: c})
		}
		return list
	}
	dir := func(names ...string) (list []object.TreeDir) {
		for _, n := range names {
			list = append(list, object.TreeDir{Name: n, Tree: c, Meta: c})
		}
		return list
	}
	metadata := func(key string, v object.Variant) *object.Commit {
		return &object.Commit{Metadata: []object.MetadataEntry{{Key: key, Value: v}}, Tree: c, Meta: c}
	}
	for _, test := range []struct {
		value  codec
		reason string
	}{
		{&object.DirTree{Files: file("b", "a")}, "not sorted"},
		{&object.DirTree{Files: file("a", "a")}, "not sorted"},
		{&object.DirTree{Dirs: dir("b", "a")}, "not sorted"},
		{&object.DirTree{Files: file("a", "c"), Dirs: dir("b", "c")}, "both a file and a directory"},
		{&object.DirTree{Files: file("")}, "name is empty"},
		{&object.DirTree{Files: file(".")}, "name is empty"},
		{&object.DirTree{Dirs: dir("..")}, "name is empty"},
		{&object.DirTree{Dirs: dir("a/b")}, "name is empty"},
		{&object.DirTree{Files: file("a\x00")}, "NUL"},
		{&object.DirTree{Files: file("a\xff")}, "not UTF-8"},
		{&object.DirTree{Files: []object.TreeFile{{Name: "a"}}}, "checksum is zero"},
		{&object.DirTree{Dirs: []object.TreeDir{{Name: "a", Tree: c}}}, "checksum is zero"},
		{&object.DirMeta{Mode: 0o755}, "mode"},
		{&object.DirMeta{Mode: 0o100755}, "mode"},
		{&object.DirMeta{Mode: 0o40755, Xattrs: long}, "attributes are not sorted"},
		{&object.DirMeta{Mode: 0o40755, Xattrs: []object.Xattr{{Name: "a\x00b"}}}, "attribute name"},
		{&object.FileHeader{Mode: 0o644}, "mode"},
		{&object.FileHeader{Mode: 0o20644}, "mode"},
		{&object.FileHeader{Mode: 0o120755, Target: "a"}, "mode"},
		{&object.FileHeader{Mode: 0o120777}, "target"},
		{&object.FileHeader{Mode: 0o100644, Target: "a"}, "target"},
		{&object.FileHeader{Mode: 0o120777, Target: "a\xff"}, "not UTF-8"},
		{&object.FileHeader{Mode: 0o120777, Target: "a\x00"}, "NUL"},
		{&object.FileHeader{Mode: 0o100644, Xattrs: long}, "attributes are not sorted"},
		{&object.FileHeader{Mode: 0o100644, Xattrs: empty}, "no value"},
		{&object.Commit{Tree: c}, "checksum is zero"},
		{&object.Commit{Tree: c, Meta: c, Subject: "\xff"}, "not UTF-8"},
		{&object.Commit{Tree: c, Meta: c, Body: "a\x00"}, "NUL"},
		{metadata("", object.ByteVariant(1)), "key is empty"},
		{metadata("a\x00", object.ByteVariant(1)), "NUL"},
		{metadata("a", object.Variant{}), "no valid type"},
		{metadata("a", object.Variant{Type: "a{vs}"}), "no valid type"},
		{metadata("a", object.Variant{Type: "u", Data: []byte{1}}), "normal form"},
		{metadata("a", object.StringVariant("\xff")), "not UTF-8"},
		{metadata("a", object.StringsVariant([]string{"a\x00b"})), "NUL"},
	} {
		b, err := test.value.AppendBinary([]byte("kept"))
		var format *object.FormatError
		if !errors.As(err, &format) || format.Offset != -1 || !strings.Contains(format.Reason, test.reason) {
			t.Errorf("%+v: got %v, want %q", test.value, err, test.reason)
		} else if !strings.Contains(err.Error(), format.Type.String()) {
			t.Errorf("the error %q does not name the type", err)
		}
		if string(b) != "kept" {
			t.Errorf("%+v: on error %q is left", test.value, b)
		}
	}
}

// TestDirMetaEmptyValue holds that a dirmeta may have what a file may not.
func TestDirMetaEmptyValue(t *testing.T) {
	m := object.DirMeta{Mode: 0o40755, Xattrs: []object.Xattr{{Name: "user.a"}, {Name: "user.b", Value: []byte("1")}}}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var again object.DirMeta
	if err := again.UnmarshalBinary(b); err != nil || len(again.Xattrs) != 2 || len(again.Xattrs[0].Value) != 0 {
		t.Errorf("decoded %+v, %v", again, err)
	}
}

func TestSortXattrs(t *testing.T) {
	x := []object.Xattr{{Name: "user.é"}, {Name: "user.b"}, {Name: "user.B"}, {Name: "security.x"}}
	object.SortXattrs(x)
	if got := fmt.Sprint(x); got != "[{security.x []} {user.B []} {user.b []} {user.é []}]" {
		t.Error(got)
	}
}

func TestVariants(t *testing.T) {
	if b, err := object.BytesVariant([]byte("ab")).Bytes(); err != nil || string(b) != "ab" {
		t.Errorf("Bytes gives %q, %v", b, err)
	}
	if b, err := object.ByteVariant(7).Byte(); err != nil || b != 7 {
		t.Errorf("Byte gives %d, %v", b, err)
	}
	if s, err := object.StringVariant("ab").Text(); err != nil || s != "ab" {
		t.Errorf("Text gives %q, %v", s, err)
	}
	if n, err := object.Uint64Variant(1 << 40).Uint64(); err != nil || n != 1<<40 {
		t.Errorf("Uint64 gives %d, %v", n, err)
	}
	for _, list := range [][]string{nil, {""}, {"", ""}, {"a", strings.Repeat("b", 300), ""}} {
		if got, err := object.StringsVariant(list).Strings(); err != nil || !slices.Equal(got, list) {
			t.Errorf("Strings gives %q, %v, want %q", got, err, list)
		}
	}
	for _, v := range []object.Variant{{}, {Type: "u", Data: make([]byte, 4)}, {Type: "t", Data: make([]byte, 4)}, {Type: "y"}, {Type: "s", Data: []byte("a")}} {
		_, e1 := v.Bytes()
		_, e2 := v.Byte()
		_, e3 := v.Text()
		_, e4 := v.Strings()
		_, e5 := v.Uint64()
		for i, err := range []error{e1, e2, e3, e4, e5} {
			if err == nil {
				t.Errorf("reader %d takes %+v", i, v)
			}
		}
	}
}

func TestLookup(t *testing.T) {
	c := object.Commit{Metadata: []object.MetadataEntry{{"a", object.ByteVariant(1)}, {"b", object.ByteVariant(2)}, {"a", object.ByteVariant(3)}}}
	if v, ok := c.Lookup("a"); !ok || v.Data[0] != 1 {
		t.Errorf("a is %+v, %v", v, ok)
	}
	if v, ok := c.Lookup("c"); ok {
		t.Errorf("c is %+v", v)
	}
}

// TestDecodedIsOwn holds that a decoded value shares no memory with its bytes.
func TestDecodedIsOwn(t *testing.T) {
	for _, path := range vectors(t, false) {
		v := sections(t, path)
		raw := unhex(t, v["hex"])
		value := newObject(t, v["type"])
		if err := value.UnmarshalBinary(raw); err != nil {
			t.Fatal(err)
		}
		kept := slices.Clone(raw)
		clear(raw)
		if got, err := value.MarshalBinary(); err != nil || !bytes.Equal(got, kept) {
			t.Errorf("%s: the decoded value changed with its bytes (%v)", path, err)
		}
	}
}

// TestCommitBytes holds a commit with metadata byte by byte: padding before values, the widths and the order of framing offsets, and
// numbers that are big-endian within. The real ostree gives it this checksum.
func TestCommitBytes(t *testing.T) {
	tree, meta := object.Sum([]byte{0}), object.Sum([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0xed})
	c := object.Commit{
		Tree: tree, Meta: meta, Subject: "Subj", Timestamp: 1700000000,
		Metadata: []object.MetadataEntry{
			{Key: "k", Value: object.StringVariant("v")},
			{Key: "ostree.ref-binding", Value: object.StringsVariant([]string{"test/one"})},
		},
	}
	got, err := c.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, "6b00 000000000000 7600 00 73 02 000000 6f73747265652e7265662d62696e64696e6700 0000000000"+
		"746573742f6f6e6500 09 00 6173 13 0d 36 5375626a00 00 0000 000000006553f100"+tree.String()+meta.String()+"68 3e 3d 38 38 38")
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if sum := object.Sum(got).String(); sum != "d5fb53c1249c80b5937738782fd72dcf19a76677f1308ef9fefd758f1566b3c4" {
		t.Errorf("the checksum of %d bytes is %s", len(got), sum)
	}
}
