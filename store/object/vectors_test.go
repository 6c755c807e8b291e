package object_test

import (
	"bytes"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A codec is what the four types of object can do.
type codec interface {
	encoding.BinaryAppender
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
	Type() object.Type
}

// newObject returns an empty value of a type.
func newObject(t testing.TB, typ string) codec {
	t.Helper()
	for _, c := range []codec{&object.FileHeader{}, &object.DirTree{}, &object.DirMeta{}, &object.Commit{}} {
		if c.Type().String() == typ {
			return c
		}
	}
	t.Fatalf("no object has type %q", typ)
	return nil
}

// sections reads a vector: a txtar file.
func sections(t testing.TB, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, name := map[string]string{}, ""
	for line := range strings.Lines(string(text)) {
		rest, begins := strings.CutPrefix(line, "-- ")
		if heading, ends := strings.CutSuffix(rest, " --\n"); begins && ends {
			name = heading
			continue
		}
		found[name] += line
	}
	for name, s := range found {
		found[name] = strings.TrimSpace(s)
	}
	return found
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectors returns the vectors that are to be accepted, or those to be refused.
func vectors(t testing.TB, bad bool) (paths []string) {
	t.Helper()
	all, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if strings.HasPrefix(filepath.Base(p), "bad-") == bad {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		t.Fatal("there are no vectors in testdata")
	}
	return paths
}

// TestVectors holds the encodings against objects that the real ostree made.
// `make vectors` holds the vectors against the ostree that is installed.
func TestVectors(t *testing.T) {
	for _, path := range vectors(t, false) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			v := sections(t, path)
			want, sum, body := newObject(t, v["type"]), v["checksum"], []byte(nil)
			if h, ok := want.(*object.FileHeader); ok {
				in := struct {
					Header *object.FileHeader
					Body   *[]byte
				}{h, &body}
				if err := json.Unmarshal([]byte(v["input"]), &in); err != nil {
					t.Fatal(err)
				}
			} else if err := json.Unmarshal([]byte(v["input"]), want); err != nil {
				t.Fatal(err)
			}
			raw := unhex(t, v["hex"])
			got, err := want.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, raw) {
				t.Errorf("encode:\n got %x\nwant %x", got, raw)
			}
			decoded := newObject(t, v["type"])
			if err := decoded.UnmarshalBinary(raw); err != nil {
				t.Fatal(err)
			}
			if !equal(decoded, want) {
				t.Errorf("decode:\n got %+v\nwant %+v", decoded, want)
			}
			if c := checksum(t, want, raw, body); c.String() != sum {
				t.Errorf("the checksum is %s, want %s", c, sum)
			}
		})
	}
}

// equal compares values as reflect.DeepEqual does, but takes an empty list for
// the same as none, as JSON and the encodings do.
func equal(a, b codec) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	null := func(b []byte) string {
		return strings.NewReplacer("[]", "null", `""`, "null").Replace(string(b))
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && null(x) == null(y)
}

func checksum(t testing.TB, v codec, raw, body []byte) object.Checksum {
	t.Helper()
	h, ok := v.(*object.FileHeader)
	if !ok {
		return object.Sum(raw)
	}
	sum, err := h.NewHash()
	if err != nil {
		t.Fatal(err)
	}
	sum.Write(body)
	c, err := h.Checksum(body)
	if err != nil {
		t.Fatal(err)
	}
	if other := object.Checksum(sum.Sum(nil)); c != other {
		t.Errorf("Checksum gives %s, NewHash %s", c, other)
	}
	return c
}

// TestB14BadVectors names the reason for which each of them is no object.
func TestB14BadVectors(t *testing.T) {
	seen := map[string]bool{}
	for _, path := range vectors(t, true) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			v := sections(t, path)
			seen[v["reason"]] = true
			err := newObject(t, v["type"]).UnmarshalBinary(unhex(t, v["hex"]))
			var format *object.FormatError
			if !errors.As(err, &format) {
				t.Fatalf("the error is %v, want a FormatError", err)
			}
			if format.Reason != v["reason"] || strconv.Itoa(format.Offset) != v["offset"] {
				t.Errorf("got %q at %d, want %q at %s", format.Reason, format.Offset, v["reason"], v["offset"])
			}
			if format.Type.String() != v["type"] {
				t.Errorf("the type is %s, want %s", format.Type, v["type"])
			}
		})
	}
	for _, reason := range object.DecodeReasons {
		if !seen[reason] {
			t.Errorf("no vector is refused because of %q", reason)
		}
	}
}

// TestNormalForm holds the check of metadata values against GLib's.
func TestNormalForm(t *testing.T) {
	text, err := os.ReadFile("testdata/glib-normal-form.txt")
	if err != nil {
		t.Fatal(err)
	}
	c, n := object.Sum(nil), 0
	for line := range strings.Lines(string(text)) {
		if line[0] == '#' {
			continue
		}
		n++
		f := strings.Split(strings.TrimSpace(line), "|")
		v := object.Variant{Type: f[0], Data: unhex(t, f[1])}
		commit := object.Commit{Metadata: []object.MetadataEntry{{Key: "k", Value: v}}, Tree: c, Meta: c}
		if _, err := commit.MarshalBinary(); (err == nil) != (f[2] == "yes") {
			t.Errorf("%s: got %v", strings.TrimSpace(line), err)
		}
	}
	if n == 0 {
		t.Error("there are no values")
	}
}
