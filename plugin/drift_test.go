package plugin_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// apart are the files that the two adapters do not have in common.
var apart = []string{
	"doc.go", "surface.go", "surface_1_43.go", "surface_1_57.go", "surface_1_59.go", "surface_1_61.go", "surface_1_62.go",
	"upstream_test.go", "drift_test.go", "releases_test.go",
}

// legacyText turns a source of this package into what it is in package legacy.
var legacyText = strings.NewReplacer(
	"go.podman.io/storage", "github.com/containers/storage",
	"package plugin", "package legacy", // and their tests
	`ostree-storage/plugin"`, `ostree-storage/plugin/legacy"`,
)

// TestSameAsLegacy holds the adapters alike: a change of one that the other does not have is a fault that only some
// programs would show.
func TestSameAsLegacy(t *testing.T) {
	names := make(map[string]bool)
	for _, glob := range []string{"*.go", "legacy/*.go"} {
		paths, err := filepath.Glob(glob)
		if err != nil || len(paths) == 0 {
			t.Fatalf("no sources match %s: %v", glob, err)
		}
		for _, p := range paths {
			names[filepath.Base(p)] = true
		}
	}
	for name := range names {
		if slices.Contains(apart, name) {
			continue
		}
		ours, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("legacy/%s has no twin: %v", name, err)
			continue
		}
		theirs, err := os.ReadFile(filepath.Join("legacy", name))
		if err != nil {
			t.Errorf("%s has no twin: %v", name, err)
			continue
		}
		if line := firstDifference(legacyText.Replace(string(ours)), string(theirs)); line != "" {
			t.Errorf("%s and legacy/%s differ: %s", name, name, line)
		}
	}
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(as), len(bs)) {
		var x, y string
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if x != y {
			return fmt.Sprintf("line %d: %q against %q", i+1, x, y)
		}
	}
	return ""
}

// TestSameSurface holds the methods that differ by version: package plugin has those of legacy's newest, and those that
// came later.
func TestSameSurface(t *testing.T) {
	theirs := append(methods(t, "legacy/surface.go"), methods(t, "legacy/surface_1_59.go")...)
	slices.Sort(theirs)
	for file, later := range map[string][]string{
		"surface_1_61.go": {"SyncMode"},
		"surface_1_62.go": {"CommitStagedLayer", "StartStagingDiffToApply", "SyncMode"},
	} {
		ours := append(methods(t, "surface.go"), methods(t, file)...)
		ours = slices.DeleteFunc(ours, func(m string) bool { return slices.Contains(later, m) })
		slices.Sort(ours)
		if !slices.Equal(ours, theirs) {
			t.Errorf("surfaces differ: %s has %v against %v", file, ours, theirs)
		}
	}
}

// methods returns the names of the exported methods in a source.
func methods(t *testing.T, path string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fn.Name.IsExported() {
			names = append(names, fn.Name.Name)
		}
	}
	if len(names) == 0 {
		t.Fatalf("no methods in %s", path)
	}
	return names
}
