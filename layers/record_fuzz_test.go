package layers

import (
	"bytes"
	"testing"
)

// FuzzRecord: a record that is taken says the same when it is written again.
func FuzzRecord(f *testing.F) {
	for _, l := range []*Layer{{ID: "x"}, {ID: "x", Parent: "a", Ancestors: []string{"a", "b"}, Size: 5, Entries: 6, ReadWrite: true}} {
		b, err := encodeRecord(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeRecord("x", b, true)
		if err != nil {
			return
		}
		first, err := encodeRecord(l)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRecord("x", first, true)
		if err != nil {
			t.Fatalf("%q is taken, and written as %q, which is not: %v", b, first, err)
		}
		if second, err := encodeRecord(again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%q, then %q (%v)", first, second, err)
		}
	})
}
