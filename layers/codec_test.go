package layers

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A codecEntry is an entry of a tree as the codec sees it.
type codecEntry struct {
	time    store.Time
	dir     bool
	implied bool
	file    bool // has a size
	symlink bool
	size    int64
	first   int // index of the first name, -1 if this is it
	raw     string
	empties []string
	special *special
}

func encodeEntries(list []codecEntry) *layerMeta {
	w := &metaWriter{}
	for _, e := range list {
		w.entry(e.time)
		if e.raw != "" {
			w.rawName(e.raw)
		}
		if e.dir {
			w.directory(e.implied)
		}
		if e.file {
			w.size(e.size, e.symlink)
		}
		if e.first >= 0 {
			w.link(uint64(e.first))
		}
		if e.special != nil {
			w.special(e.special)
		} else {
			w.empties(e.empties)
		}
	}
	return w.finish()
}

// decodeEntries reads metadata along the shape of a list: only what kind an entry is is taken from it.
func decodeEntries(m *layerMeta, shape []codecEntry) ([]codecEntry, error) {
	r := newMetaReader(m)
	var out []codecEntry
	for _, s := range shape {
		e := codecEntry{time: r.entry(), dir: s.dir, file: s.file, first: -1}
		if s.raw != "" {
			e.raw, _ = r.rawName()
		}
		if s.dir {
			e.implied = r.directory()
		}
		if s.file {
			e.size, e.symlink = r.size()
		}
		if first, ok := r.link(); ok {
			e.first = int(first)
		}
		if s.special != nil {
			if e.special = r.special(r.ordinal()); e.special != nil {
				r.take()
			}
		} else {
			e.empties = r.empties()
		}
		if err := r.err(); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, r.finish()
}

// sampleTree is a tree with everything in it: root (implied), a (file), b (symlink), c (fifo), d (further name of a), e (raw name),
// sub/ with x and y.
func sampleTree() []codecEntry {
	return []codecEntry{
		{dir: true, implied: true, first: -1},
		{time: store.Time{Sec: 1000, Nsec: 5}, file: true, size: 300, first: -1, empties: []string{"user.a", "user.b"}},
		{time: store.Time{Sec: 1000, Nsec: 5}, file: true, symlink: true, size: 4, first: -1},
		{time: store.Time{Sec: -7, Nsec: 999999999}, first: -1, special: &special{Name: "c", Mode: unix.S_IFIFO | 0o600, UID: 1, GID: 70000, Attrs: []attr{{"trusted.x", ""}, {"trusted.y", "z"}}}},
		{time: store.Time{Sec: 1000, Nsec: 5}, file: true, size: 300, first: 1},
		{time: store.Time{Sec: 1 << 40}, file: true, size: 0, first: -1, raw: "\xff"},
		{time: store.Time{Sec: 9}, dir: true, first: -1, empties: []string{"user.e"}},
		{time: store.Time{Sec: 9}, file: true, size: 1 << 40, first: -1},
		{time: store.Time{Sec: 9}, first: -1, special: &special{Dir: 1, Name: "y", Mode: unix.S_IFBLK | 0o660, Major: 8, Minor: 1 << 19}},
	}
}

func TestCodecVector(t *testing.T) {
	m := encodeEntries(sampleTree())
	// Worked out by hand from docs/format.md.
	want := map[string]string{
		keyTimes:    "010000  02d00f05  01dd0fff93ebdc03  01de0f05  01b0f0ffffff3f00  03edffffffff3f00",
		keySizes:    "d804 09 d804 00 808080808040",
		keyLinks:    "04 03",
		keyNames:    "05 01 ff",
		keyImplied:  "00",
		keyAttrs:    "01 02 06 757365722e61 06 757365722e62  05 01 06 757365722e65",
		keySpecials: "00 01 63 8023 01 f0a204 00 00 00 02 09 747275737465642e78 00 09 747275737465642e79 01 7a  01 01 79 b0c301 00 00 08 808020 00 00",
	}
	for _, f := range m.fields() {
		if got := hex.EncodeToString(*f.value); got != strings.ReplaceAll(want[f.key], " ", "") {
			t.Errorf("%s:\nwant %s\n got %s", f.key, strings.ReplaceAll(want[f.key], " ", ""), got)
		}
	}
}

func TestCodecRoundTrip(t *testing.T) {
	list := sampleTree()
	m := encodeEntries(list)
	got, err := decodeEntries(m, list)
	if err != nil {
		t.Fatal(err)
	}
	if again := encodeEntries(got); !equalMeta(m, again) {
		t.Errorf("decoded and encoded again:\n%x\n%x", m, again)
	}
	empty, err := decodeEntries(&layerMeta{times: []byte{1, 0, 0}}, []codecEntry{{dir: true, first: -1}})
	if err != nil || empty[0].implied {
		t.Errorf("empty layer: %+v, %v", empty, err)
	}
}

func equalMeta(a, b *layerMeta) bool {
	fa, fb := a.fields(), b.fields()
	for i := range fa {
		if !bytes.Equal(*fa[i].value, *fb[i].value) {
			return false
		}
	}
	return true
}

// TestCodecRefuses changes one value at a time into what no writer writes.
func TestCodecRefuses(t *testing.T) {
	tests := []struct {
		name, key, value, want string
	}{
		{"no times", keyTimes, "", "fewer times"},
		{"empty run", keyTimes, "00 00 00", "empty run"},
		{"run goes on", keyTimes, "01 00 00 08 00 00", "continues"},
		{"too many times", keyTimes, "0a 00 00", "more times"},
		{"one more run", keyTimes, "09 00 00 01 02 00", "belongs to no entry"},
		{"nanoseconds", keyTimes, "09 00 8094ebdc03", "nanoseconds"},
		{"longer number", keyTimes, "8900 00 00", "longer than needed"},
		{"cut number", keyTimes, "89", "cut short"},
		{"too large a number", keyTimes, "ffffffffffffffffff7f 00 00", "cut short or too large"},
		{"fewer sizes", keySizes, "00 00", "fewer sizes"},
		{"more sizes", keySizes, "00 00 00 00 00 00", "belongs to no entry"},
		{"link to itself", keyLinks, "04 00", "no earlier"},
		{"link to before the root", keyLinks, "04 05", "no earlier"},
		{"link twice", keyLinks, "04 03 00 03", "repeated"},
		{"link of nothing", keyLinks, "63 03", "belongs to no entry"},
		{"name of an entry that needs none", keyNames, "04 01 ff", "belongs to no entry"},
		{"cut name", keyNames, "05 02 ff", "cut short"},
		{"implied directory that is none", keyImplied, "02", "belongs to no entry"},
		{"implied twice", keyImplied, "00 00", "repeated"},
		{"no attributes", keyAttrs, "01 00", "wrong number"},
		{"attributes out of order", keyAttrs, "01 02 01 62 01 61", "not in order"},
		{"attribute without a name", keyAttrs, "01 01 00", "not in order"},
		{"special in no directory", keySpecials, "07 01 63 8023 00 00 00 00 00 00", "belongs to no entry"},
		{"special of a wrong type", keySpecials, "00 01 63 8080 02 00 00 00 00 00 00", "bad type"},
		{"special with a bad name", keySpecials, "00 02 2e2e 8023 00 00 00 00 00 00", "bad name"},
		{"fifo with a number", keySpecials, "00 01 63 8023 00 00 01 00 00 00", "bad device number"},
		{"device number", keySpecials, "00 01 63 80c001 00 00 8020 00 00 00", "bad device number"},
		{"symlink in UTF-8", keySpecials, "00 01 63 ffc302 00 00 00 00 01 61 00", "needs no special"},
		{"fifo with a target", keySpecials, "00 01 63 8023 00 00 00 00 01 61 00", "target of no symlink"},
		{"large owner", keySpecials, "00 01 63 8023 8080808010 00 00 00 00 00", "32 bits"},
		{"specials out of order", keySpecials, "00 01 64 8023 00 00 00 00 00 00 00 01 63 8023 00 00 00 00 00 00", "not in order"},
		{"special's attributes", keySpecials, "00 01 63 8023 00 00 00 00 00 ff01", "wrong number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := encodeEntries(sampleTree())
			for _, f := range m.fields() {
				if f.key == tt.key {
					b, err := hex.DecodeString(strings.ReplaceAll(tt.value, " ", ""))
					if err != nil {
						t.Fatal(err)
					}
					*f.value = b
				}
			}
			_, err := decodeEntries(m, sampleTree())
			var e *metaError
			if !errors.As(err, &e) || !errors.Is(err, errMeta) || e.key != tt.key || !strings.Contains(e.reason, tt.want) {
				t.Errorf("error %v, want %s: %s", err, tt.key, tt.want)
			}
		})
	}
}

func TestReadLayerMeta(t *testing.T) {
	good := layerCommit(encodeEntries(sampleTree()), object.Checksum{}, object.Checksum{})
	if _, err := readLayerMeta(good); err != nil {
		t.Error(err)
	}
	for i := 1; i < len(good.Metadata); i++ {
		if good.Metadata[i-1].Key >= good.Metadata[i].Key {
			t.Errorf("%s comes after %s", good.Metadata[i].Key, good.Metadata[i-1].Key)
		}
	}
	for name, change := range map[string]func(*object.Commit){
		"no format": func(c *object.Commit) { c.Metadata = nil },
		"later format": func(c *object.Commit) {
			c.Metadata = []object.MetadataEntry{{Key: keyFormat, Value: object.ByteVariant(2)}}
		},
		"unknown key": func(c *object.Commit) {
			c.Metadata = append(c.Metadata, object.MetadataEntry{Key: "ostree-storage.zeal", Value: object.ByteVariant(1)})
		},
		"repeated key": func(c *object.Commit) {
			c.Metadata = append(slices.Clone(c.Metadata[:1]), c.Metadata...)
		},
		"repeated key with another value": func(c *object.Commit) {
			c.Metadata = slices.Insert(slices.Clone(c.Metadata), 1, object.MetadataEntry{Key: keyTimes, Value: object.BytesVariant([]byte{1, 0, 0})})
		},
		"keys out of order": func(c *object.Commit) {
			c.Metadata = slices.Clone(c.Metadata)
			slices.Reverse(c.Metadata)
		},
		"empty value": func(c *object.Commit) {
			c.Metadata = []object.MetadataEntry{{Key: keyFormat, Value: object.ByteVariant(1)}, {Key: keyTimes, Value: object.BytesVariant(nil)}}
		},
		"other type": func(c *object.Commit) {
			c.Metadata = []object.MetadataEntry{{Key: keyFormat, Value: object.ByteVariant(1)}, {Key: keyTimes, Value: object.StringVariant("x")}}
		},
	} {
		c := *good
		change(&c)
		if _, err := readLayerMeta(&c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestTreeNames(t *testing.T) {
	const sum = ".oci-raw."
	for _, tt := range []struct {
		raw      string
		whiteout bool
		escaped  bool
	}{
		{"plain", false, false}, {"ünï", false, false}, {"\xff", false, true}, {".oci-raw.x", false, true}, {".oci-ra", false, false},
		{".wh.x", true, false}, {".wh.x", false, true}, {".wh.\xff", true, true}, {".wh." + strings.Repeat("x", 251), true, false}, {".wh." + strings.Repeat("x", 252), true, true},
	} {
		name, escaped := treeName(tt.raw, tt.whiteout)
		if escaped != tt.escaped || escaped != strings.HasPrefix(name, sum) || !escaped && name != tt.raw || !validTreeName(name) {
			t.Errorf("%.20q (whiteout %v): %q, %v", tt.raw, tt.whiteout, name, escaped)
		}
	}
}

// FuzzLayerMeta holds that metadata has one form: what can be read is what would be written.
func FuzzLayerMeta(f *testing.F) {
	m := encodeEntries(sampleTree())
	f.Add(m.times, m.sizes, m.links, m.specials, m.names, m.implied, m.attrs)
	f.Add([]byte{1, 0, 0}, []byte{}, []byte{}, []byte{}, []byte{}, []byte{0}, []byte{})
	f.Fuzz(func(t *testing.T, times, sizes, links, specials, names, implied, attrs []byte) {
		m := &layerMeta{times, sizes, links, specials, names, implied, attrs}
		list, err := decodeEntries(m, sampleTree())
		if err != nil {
			return
		}
		if again := encodeEntries(list); !equalMeta(m, again) {
			t.Errorf("two forms:\n%x\n%x", m, again)
		}
	})
}
