package layers_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/layers"
)

// naiveLines brings a list that upstream makes in the random order of a map into the order of ours.
func naiveLines(lines []string) []string {
	key := func(l string) string { return strings.ReplaceAll(l[2:], "/", "\x00") }
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(key(a), key(b)) })
	return lines
}

func TestNaiveChangesMatchUpstream(t *testing.T) {
	base := tmpfs(t)
	for seed := range oracleSeeds(80) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			g := newRandomTree(t, base, seed)
			defer g.clean()
			lowers := g.chain(1+int(seed)%3, 30)
			upper := g.dir("upper")
			g.mount("", lowers, func(old string) {
				g.mount(upper, lowers, func(merged string) {
					g.work(merged, 5+int(seed%40))
					for _, maps := range [][]layers.IDMap{nil, mapAll, mapUser} {
						compareNaive(t, merged, old, maps)
					}
					compareNaive(t, old, merged, nil)
					compareNaive(t, merged, "", nil)
					compareTree(t, merged)
				})
			})
		})
	}
}

func compareTree(t *testing.T, dir string) {
	t.Helper()
	r, err := archive.TarWithOptions(dir, &archive.TarOptions{Compression: archive.Uncompressed, UIDMaps: upstreamMaps(mapShift)})
	want := readArchive(t, r, err)
	var b bytes.Buffer
	if err := layers.WriteTree(context.Background(), &b, dir, layers.TreeOptions{UIDMaps: mapShift}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Fatalf("trees differ: %s", diffLines(tarLines(want), tarLines(b.Bytes())))
	}
}

func compareNaive(t *testing.T, newDir, oldDir string, maps []layers.IDMap) {
	t.Helper()
	um := idtools.NewIDMappingsFromMaps(upstreamMaps(maps), upstreamMaps(maps))
	want, err := archive.ChangesDirs(newDir, um, oldDir, um)
	if err != nil {
		t.Fatalf("upstream: %v", err)
	}
	want = withoutChildrenOfSpecials(t, want, newDir)
	got, err := layers.NaiveChanges(newDir, oldDir, layers.NaiveOptions{NewUIDs: maps, NewGIDs: maps, OldUIDs: maps, OldGIDs: maps})
	if err != nil {
		t.Fatal(err)
	}
	if w, g := naiveLines(changeLines(want)), ourLines(got); !slices.Equal(w, g) {
		t.Fatalf("naive changes differ: %s", diffLines(w, g))
	}
	wantSize, err := archive.ChangesSizeWithError(newDir, want)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := layers.ChangesSize(newDir, got); err != nil || size != wantSize {
		t.Fatalf("size of changes is %d (%v), upstream has %d", size, err, wantSize)
	}
	r, err := archive.ExportChanges(newDir, want, um.UIDs(), um.GIDs())
	wantTar := readArchive(t, r, err)
	var b bytes.Buffer
	if err := layers.WriteNaiveDiff(context.Background(), &b, newDir, got, layers.TreeOptions{UIDMaps: maps, GIDMaps: maps}); err != nil {
		t.Fatal(err)
	}
	if w, g := withoutWhiteoutTimes(wantTar), withoutWhiteoutTimes(b.Bytes()); !bytes.Equal(w, g) {
		t.Fatalf("naive diffs differ: %s", diffLines(tarLines(wantTar), tarLines(b.Bytes())))
	}
}

// withoutChildrenOfSpecials drops what upstream lists under a block device or a socket that replaced a directory: it takes
// them for directories, since their type has that bit.
func withoutChildrenOfSpecials(t *testing.T, changes []archive.Change, newDir string) []archive.Change {
	t.Helper()
	return slices.DeleteFunc(changes, func(c archive.Change) bool {
		if c.Kind != archive.ChangeDelete {
			return false
		}
		st, err := os.Lstat(newDir + c.Path[:strings.LastIndexByte(c.Path, '/')])
		return err == nil && !st.IsDir()
	})
}

// withoutWhiteoutTimes rewrites a tar with the times of whiteouts, which are those of the moment, set to zero.
func withoutWhiteoutTimes(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 0; i+512 <= len(b); i += 512 {
		h := b[i : i+512]
		if h[156] == '0' && string(h[100:108]) == "0000000\x00" && string(h[124:136]) == "00000000000\x00" && string(h[257:262]) == "ustar" {
			copy(h[136:156], make([]byte, 20)) // the time and the header's checksum
		}
	}
	return b
}
