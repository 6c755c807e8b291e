package plugin_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// releases are those of containers/storage under its newer path that have another interface than the one before, and the newest; with the
// build tag that each needs. go.mod's own is what the other tests are built with.
var releases = []struct{ version, tag, goVersion string }{
	{"v1.61.0", "containers_storage_1_61", "go1.24"},
	{"v1.62.2", "", "go1.25"}, // staged layers
	{"v1.63.0", "", "go1.25"}, // SyncMode
	{"v1.65.0", "", "go1.26"}, // as v1.64: no DisableShifting
}

// TestBuildsWithReleases builds the package on other releases than go.mod's. That it builds says that the driver is
// one for this release, because Init returns a graphdriver.Driver; and that the optional interfaces are those it has.
func TestBuildsWithReleases(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: four builds")
	}
	for _, r := range releases {
		t.Run(r.version, func(t *testing.T) {
			if goBefore(runtime.Version(), r.goVersion) {
				t.Skipf("containers/storage %s needs %s, this is %s", r.version, r.goVersion, runtime.Version())
			}
			if out, err := buildOn(t, r.version, r.tag); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	// The oldest without its tag does not build: a tag that nothing needs would be one too many.
	if out, err := buildOn(t, "v1.61.0", ""); err == nil || !strings.Contains(out, "ApplyDiffStaging") {
		t.Errorf("v1.61.0 without its tag: %v\n%s", err, out)
	}
}

// buildOn runs go build with go.mod's modules, but for containers/storage at another version.
func buildOn(t *testing.T, version, tag string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "go.mod" {
			text = fmt.Appendf(text, "\nreplace go.podman.io/storage => go.podman.io/storage %s\n", version)
			if version == "v1.62.2" { // which uses what filepath-securejoin v0.7 does not have any more
				text = fmt.Appendln(text, "replace github.com/cyphar/filepath-securejoin => github.com/cyphar/filepath-securejoin v0.5.1")
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("go", "build", "-modfile="+filepath.Join(dir, "go.mod"), ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -tags=exclude_graphdriver_btrfs,"+tag)
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("plugin on containers/storage %s, tag %q: %w", version, tag, err)
	}
	return string(out), err
}

func goBefore(have, want string) bool {
	var major, minor, wantMajor, wantMinor int
	if n, _ := fmt.Sscanf(have, "go%d.%d", &major, &minor); n != 2 {
		return false // a development version
	}
	fmt.Sscanf(want, "go%d.%d", &wantMajor, &wantMinor)
	return major < wantMajor || major == wantMajor && minor < wantMinor
}
