package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/directory"
	"go.podman.io/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// oracleDialect is what the version of containers/storage speaks that these tests are built with.
var oracleDialect layers.TarDialect

// The oracle of these tests is containers/storage itself: pkg/archive as its overlay driver calls it.

func init() {
	logrus.SetOutput(io.Discard)
	logrus.AddHook(&upstreamSkips)
}

// skipHook collects what upstream leaves out of a tar with nothing but a line in the log.
type skipHook struct {
	mu    sync.Mutex
	lines []string
}

var upstreamSkips skipHook

func (h *skipHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *skipHook) Fire(e *logrus.Entry) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, e.Message)
	return nil
}

func (h *skipHook) reset() { h.lines = nil }

// explain says whether all that our tar has and upstream's has not are entries that upstream dropped where it should not have:
// whiteouts whose owner, the one who mounted, has no id in the container, and directories in place of looping symlinks.
func (h *skipHook) explain(want, got []string) bool {
	dropped := make(map[string]bool)
	for _, line := range h.lines {
		var name string
		if _, err := fmt.Sscanf(line, "Can't add file %q", &name); err != nil {
			continue
		}
		if strings.Contains(line, "cannot be mapped") {
			dir, base := filepath.Split(name)
			dropped[dir+".wh."+base] = true
		}
		if strings.Contains(line, "too many levels of symbolic links") {
			dropped[name+"/"] = true
			dropped[name+"/.wh..wh..opq"] = true
		}
	}
	want, got = withoutWhiteoutLinks(want), withoutWhiteoutLinks(got)
	got = slices.DeleteFunc(got, func(line string) bool {
		if slices.Contains(want, line) {
			return false
		}
		var kind rune
		var name string
		_, err := fmt.Sscanf(line, "%c %q", &kind, &name)
		return err == nil && dropped[name]
	})
	return slices.Equal(want, got)
}

// withoutWhiteoutLinks drops the link names of whiteouts, which name the first whiteout of the same inode that was not dropped.
func withoutWhiteoutLinks(lines []string) []string {
	links := regexp.MustCompile(`^0 ("(?:[^"\\]|\\.)*") -> "(?:[^"\\]|\\.)*"`)
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = links.ReplaceAllString(line, "0 $1")
	}
	return out
}

func upstreamMaps(maps []layers.IDMap) []idtools.IDMap {
	var u []idtools.IDMap
	for _, m := range maps {
		u = append(u, idtools.IDMap{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	return u
}

func upstreamDiff(t testing.TB, o layers.DiffOptions) []byte {
	t.Helper()
	r, err := archive.TarWithOptions(o.Upper, &archive.TarOptions{
		Compression:    archive.Uncompressed,
		UIDMaps:        upstreamMaps(o.UIDMaps),
		GIDMaps:        upstreamMaps(o.GIDMaps),
		WhiteoutFormat: archive.OverlayWhiteoutFormat,
		WhiteoutData:   o.Lowers,
	})
	return readArchive(t, r, err)
}

func readArchive(t testing.TB, r io.ReadCloser, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("upstream: %v", err)
	}
	return b
}

func ourDiff(t testing.TB, o layers.DiffOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := layers.WriteDiff(context.Background(), &b, o); err != nil {
		t.Fatalf("WriteDiff: %v", err)
	}
	return b.Bytes()
}

func tarLines(b []byte) []string {
	var lines []string
	for tr := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := tr.Next()
		if err != nil {
			return append(lines, fmt.Sprint(err))
		}
		delete(h.PAXRecords, "linkpath") // shown as Linkname
		lines = append(lines, fmt.Sprintf("%c %q -> %q %o %d:%d size %d time %v dev %d:%d %q", h.Typeflag, h.Name, h.Linkname, h.Mode, h.Uid, h.Gid,
			h.Size, h.ModTime.UTC(), h.Devmajor, h.Devminor, h.PAXRecords))
	}
}

// diffLines shows the first lines where two lists part.
func diffLines(want, got []string) string {
	for i := range max(len(want), len(got)) {
		w, g := "(end)", "(end)"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			return fmt.Sprintf("entry %d:\n want %s\n got  %s", i, w, g)
		}
	}
	return "the entries are equal, other bytes are not"
}

func compareDiff(t testing.TB, o layers.DiffOptions) {
	t.Helper()
	o.Dialect = oracleDialect
	upstreamSkips.reset()
	want, got := upstreamDiff(t, o), ourDiff(t, o)
	if !bytes.Equal(want, got) && !upstreamSkips.explain(tarLines(want), tarLines(got)) {
		t.Fatalf("tars differ: %s", diffLines(tarLines(want), tarLines(got)))
	}
}

// compareChanges compares lists, and says whether upstream had one.
func compareChanges(t testing.TB, upper string, lowers []string) bool {
	t.Helper()
	got, err := layers.Changes(upper, lowers, layers.ChangesOptions{})
	if err != nil {
		t.Fatalf("Changes: %v", err)
	}
	want, err := archive.OverlayChanges(lowers, upper)
	if err != nil {
		return false
	}
	if w, g := changeLines(want), ourLines(got); !slices.Equal(w, g) {
		t.Fatalf("changes differ: %s", diffLines(w, g))
	}
	return true
}

func changeLines(changes []archive.Change) []string {
	var lines []string
	for _, c := range changes {
		lines = append(lines, c.String())
	}
	return lines
}

func ourLines(changes []layers.Change) []string {
	var lines []string
	for _, c := range changes {
		lines = append(lines, c.String())
	}
	return lines
}

func compareUsage(t testing.TB, dir string) {
	t.Helper()
	want, err := directory.Usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := layers.DiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	size, err := layers.DiffSize(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != want.Size || got.Inodes != want.InodeCount || size != want.Size {
		t.Fatalf("usage of %s is %+v (size %d), upstream has %+v", dir, got, size, *want)
	}
}

var (
	mapAll   = []layers.IDMap{{ContainerID: 0, HostID: 0, Size: 1 << 30}}
	mapShift = []layers.IDMap{{ContainerID: 5, HostID: 0, Size: 1000}, {ContainerID: 100000, HostID: 1000, Size: 1 << 30}}
	mapFew   = []layers.IDMap{{ContainerID: 0, HostID: 100000, Size: 1 << 16}}
	mapUser  = []layers.IDMap{{ContainerID: 0, HostID: 100000, Size: 3}, {ContainerID: 3, HostID: 0, Size: 1 << 16}, {ContainerID: 1 << 17, HostID: 1 << 16, Size: 1 << 25}}
)

// compareAll holds one upper directory against upstream in every way that the overlay driver reads it.
func compareAll(t testing.TB, upper string, lowers []string) (changesCompared bool) {
	t.Helper()
	for _, maps := range [][]layers.IDMap{nil, mapAll, mapShift, mapUser, mapFew} {
		compareDiff(t, layers.DiffOptions{Upper: upper, Lowers: lowers, UIDMaps: maps, GIDMaps: maps})
	}
	compareDiff(t, layers.DiffOptions{Upper: upper, UIDMaps: mapShift})
	compareDiff(t, layers.DiffOptions{Upper: upper})
	compareUsage(t, upper)
	return compareChanges(t, upper, lowers)
}

// oracleSeeds is how many seeds a test of random trees takes. LAYERS_SEEDS multiplies it, for soaking.
func oracleSeeds(n uint64) uint64 {
	if testing.Short() {
		return n / 8
	}
	if times, err := strconv.ParseUint(os.Getenv("LAYERS_SEEDS"), 10, 16); err == nil {
		n *= times
	}
	return n
}

func TestDiffMatchesUpstreamOnOverlay(t *testing.T) {
	base := tmpfs(t)
	refused := 0
	for seed := range oracleSeeds(120) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			g := newRandomTree(t, base, seed)
			defer g.clean()
			g.few = seed%3 == 1
			lowers := g.chain(1+int(seed)%4, 15+int(seed%40))
			upper := g.dir("upper")
			g.mount(upper, lowers, func(merged string) { g.work(merged, 10+int(seed%50)) })
			if !compareAll(t, upper, lowers) {
				refused++
			}
			compareAll(t, lowers[0], lowers[1:])
			compareAll(t, lowers[len(lowers)-1], nil)
		})
	}
	t.Logf("upstream refused to list the changes of %d trees", refused)
}

func TestDiffMatchesUpstreamOnHandmadeLayers(t *testing.T) {
	base := tmpfs(t)
	refused := 0
	for seed := range oracleSeeds(300) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			g := newRandomTree(t, base, seed)
			g.few = seed%2 == 1
			defer g.clean()
			var lowers []string
			for range seed % 5 {
				lowers = append(lowers, g.handmade(10+int(seed%30)))
			}
			if !compareAll(t, g.handmade(40), lowers) {
				refused++
			}
		})
	}
	t.Logf("upstream refused to list the changes of %d trees", refused)
}

// clean removes what the generator made.
func (g *randomTree) clean() {
	entries, err := os.ReadDir(g.base)
	g.check(err)
	for _, e := range entries {
		g.check(os.RemoveAll(g.base + "/" + e.Name()))
	}
}

// On real filesystems directories have other sizes, and overlayfs other ways.
func TestDiffMatchesUpstreamOnFilesystems(t *testing.T) {
	needRoot(t)
	testfs.Each(t, func(t *testing.T, dir string) {
		for seed := range oracleSeeds(16) {
			g := newRandomTree(t, dir, 1<<20+seed)
			g.few = seed%4 == 3
			g.base = g.dir(fmt.Sprint("seed", seed))
			lowers := g.chain(1+int(seed)%3, 40)
			upper := g.dir("upper")
			g.mount(upper, lowers, func(merged string) { g.work(merged, 50) })
			compareAll(t, upper, lowers)
			compareAll(t, lowers[0], lowers[1:])
			compareAll(t, g.handmade(30), lowers)
		}
	})
}

func TestDiffOfNothing(t *testing.T) {
	dir := tmpfs(t)
	compareAll(t, dir, nil)
	if got := ourDiff(t, layers.DiffOptions{Upper: dir}); !reflect.DeepEqual(got, make([]byte, 1024)) {
		t.Errorf("the tar of nothing has %d bytes", len(got))
	}
	if _, err := layers.Changes(dir+"/none", nil, layers.ChangesOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("changes of a directory that is not there: %v", err)
	}
}
