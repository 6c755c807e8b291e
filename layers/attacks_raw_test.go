package layers_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/layers"
)

// A rawEntry is an entry of a tar that no writer of tars would make.
type rawEntry struct {
	name, link, body string
	flag             byte
	size             string // of the header, if it is to lie
	uid, gid         int64
}

// rawTar writes headers byte by byte.
func rawTar(entries ...rawEntry) []byte {
	var raw bytes.Buffer
	number := func(b []byte, n int64) {
		if n >= 0 && n < 1<<21 {
			copy(b, fmt.Sprintf("%07o\x00", n))
			return
		}
		binary.BigEndian.PutUint64(b, uint64(n))
		b[0] |= 0x80
	}
	for _, e := range entries {
		h := make([]byte, 512)
		copy(h, e.name)
		copy(h[100:], "0000644\x00")
		number(h[108:116], e.uid)
		number(h[116:124], e.gid)
		size := e.size
		if size == "" {
			size = fmt.Sprintf("%011o\x00", len(e.body))
		}
		copy(h[124:136], size)
		copy(h[136:], "00000000000\x00        ")
		h[156] = e.flag
		copy(h[157:257], e.link)
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		raw.Write(h)
		raw.WriteString(e.body)
		raw.Write(make([]byte, (512-len(e.body)%512)%512))
	}
	raw.Write(make([]byte, 1024))
	return raw.Bytes()
}

// paxRecord is one record of an extended header.
func paxRecord(k, v string) string {
	n := len(k) + len(v) + 3
	for d := 1; ; d++ {
		if s := fmt.Sprintf("%d %s=%s\n", n+d, k, v); len(s) == n+d {
			return s
		}
	}
}

// TestA10Sizes has sizes that lie, repeat or overflow. What upstream takes comes out as upstream has it, so that nothing can be
// hidden from one of the two; what it refuses is refused; memory follows from the bytes that are there.
func TestA10Sizes(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	smuggled := string(rawTar(rawEntry{name: "smuggled", flag: '0', body: "evil"}))[:1024]
	pax := func(records ...string) rawEntry {
		return rawEntry{name: "pax", flag: 'x', body: strings.Join(records, "")}
	}
	negative := make([]byte, 12)
	binary.BigEndian.PutUint64(negative[4:], 1<<64-512)
	negative[0], negative[1], negative[2], negative[3] = 0xff, 0xff, 0xff, 0xff
	huge := "77777777777\x00"
	var maps strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&maps, "%d,0,", i)
	}
	tars := map[string][]byte{
		"pax says more":       rawTar(pax(paxRecord("size", "1024")), rawEntry{name: "a", flag: '0', size: "00000000000\x00", body: smuggled}, rawEntry{name: "b", flag: '0', body: "b"}),
		"pax says less":       rawTar(pax(paxRecord("size", "0")), rawEntry{name: "a", flag: '0', body: smuggled}, rawEntry{name: "b", flag: '0', body: "b"}),
		"pax twice":           rawTar(pax(paxRecord("size", "0"), paxRecord("size", "1024")), rawEntry{name: "a", flag: '0', body: smuggled}),
		"pax of pax":          rawTar(pax(paxRecord("path", "one")), pax(paxRecord("path", "two")), rawEntry{name: "a", flag: '0', body: "x"}),
		"global size":         rawTar(rawEntry{name: "g", flag: 'g', body: paxRecord("size", "1024")}, rawEntry{name: "a", flag: '0', size: "00000000000\x00", body: smuggled}),
		"global path":         rawTar(rawEntry{name: "g", flag: 'g', body: paxRecord("path", "passwd")}, rawEntry{name: "a", flag: '0', body: "x"}),
		"negative pax":        rawTar(pax(paxRecord("size", "-512")), rawEntry{name: "a", flag: '0', body: "x"}),
		"overflowing pax":     rawTar(pax(paxRecord("size", "99999999999999999999")), rawEntry{name: "a", flag: '0', body: "x"}),
		"negative":            rawTar(rawEntry{name: "a", flag: '0', size: string(negative), body: "x"}),
		"more than there is":  rawTar(rawEntry{name: "a", flag: '0', size: huge, body: "x"}),
		"directory with size": rawTar(rawEntry{name: "d/", flag: '5', body: smuggled}, rawEntry{name: "b", flag: '0', body: "b"}),
		"symlink with size":   rawTar(rawEntry{name: "s", flag: '2', link: "x", body: smuggled}, rawEntry{name: "b", flag: '0', body: "b"}),
		"long sparse map": rawTar(pax(paxRecord("GNU.sparse.major", "0"), paxRecord("GNU.sparse.minor", "1"), paxRecord("GNU.sparse.name", "s"),
			paxRecord("GNU.sparse.size", "100000"), paxRecord("GNU.sparse.numblocks", "100000"), paxRecord("GNU.sparse.map", strings.TrimSuffix(maps.String(), ","))), rawEntry{name: "a", flag: '0'}),
		"sparse map that says it is long": rawTar(pax(paxRecord("GNU.sparse.major", "1"), paxRecord("GNU.sparse.minor", "0"), paxRecord("GNU.sparse.name", "s"),
			paxRecord("GNU.sparse.realsize", "1")), rawEntry{name: "a", flag: '0', body: "9999999999\n0\n0\n"}),
	}
	for name, data := range tars {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			taken := compareUnpack(t, c, fmt.Sprintf("%x", name), data)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
				t.Errorf("%d bytes allocated for a tar of %d", n, len(data))
			}
			if !taken {
				if l, err := tryApply(c, fmt.Sprintf("x%x", name), "", data); err == nil {
					t.Errorf("taken, upstream refuses it: %q", shortTree(t, l.TreeDir()))
				}
			}
		})
	}
}
