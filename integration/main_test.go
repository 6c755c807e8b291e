package integration_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestMain runs more tests at a time than there are processors: most wait for disks, and for programs that sleep.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		if err := f.Value.Set(fmt.Sprint(2*runtime.GOMAXPROCS(0) + 1)); err != nil {
			panic(err)
		}
	}
	before := hostCRIO()
	code := m.Run()
	if after := hostCRIO(); after != before {
		fmt.Fprintf(os.Stderr, "the tests changed the host's %s\nbefore: %s\nafter: %s\n", hostCRIODir, before, after)
		code = max(code, 1)
	}
	os.Exit(code)
}

const hostCRIODir = "/etc/crio"

// hostCRIO says what is in the host's own configuration of CRI-O, and since when: no test may touch it.
func hostCRIO() string {
	var text strings.Builder
	_ = filepath.Walk(hostCRIODir, func(path string, fi os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintf(&text, "%s %d %s; ", path, fi.Size(), fi.ModTime())
		}
		return nil
	})
	return text.String()
}

// newStore makes a store on an ext4 filesystem of its own.
func newStore(t *testing.T, driver string) *programs.Store {
	t.Helper()
	return programs.NewStore(t, filepath.Join(testfs.Mount(t, "ext4"), "s"), driver)
}

// twoStores makes a store with the driver and one with overlay, on one filesystem. What is compared is what programs see: it is the
// same on every filesystem, as integration/differential shows.
func twoStores(t *testing.T) (ours, overlay *programs.Store) {
	t.Helper()
	dir := testfs.Memory(t)
	return programs.NewStore(t, filepath.Join(dir, "ours"), "ostree"), programs.NewStore(t, filepath.Join(dir, "theirs"), "overlay")
}

// pull takes a fixture image into a store from its layout.
func pull(t *testing.T, s *programs.Store, podman programs.Program, image fixtures.Image) {
	t.Helper()
	// Podman 4.3 names the image after the directory as given, so that this is image.Ref().
	id := s.RunIn(filepath.Dir(image.Layout), podman, "pull", "--quiet", "oci:"+image.Name)
	if id != image.ID {
		t.Errorf("%s: pull of %s gives the ID %s, want %s", s.Driver, image.Name, id, image.ID)
	}
}

// same compares what two stores gave, line by line.
func same(t *testing.T, what, ours, theirs string) {
	t.Helper()
	if ours == theirs {
		return
	}
	a, b := strings.Split(ours, "\n"), strings.Split(theirs, "\n")
	var text []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			text = append(text, "only ours:    "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			text = append(text, "only overlay: "+l)
		}
	}
	if len(text) > 40 {
		text = append(text[:40], fmt.Sprintf("and %d more", len(text)-40))
	}
	t.Errorf("%s differs from overlay's:\n%s", what, strings.Join(text, "\n"))
}

// sorted gives text with its lines in order.
func sorted(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
