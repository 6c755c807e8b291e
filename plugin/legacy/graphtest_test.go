package legacy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containers/storage/drivers/graphtest"
	"github.com/containers/storage/pkg/reexec"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/storetest"

	_ "github.com/ostree-storage/ostree-storage/plugin/legacy"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	// Neither this machine's configuration nor its pinned store is part of a test.
	if err := os.Setenv(driver.ConfigVariable, "none"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// noPins keeps tests off the pinned store that stands beside a temporary graphroot by accident.
const noPins = "pinned_store=none"

// shallow is how many layers DeepLayerRead makes where deepest is not worth the time.
const shallow = 50

// TestGraph runs the conformance tests that containers/storage has for its own drivers.
func TestGraph(t *testing.T) {
	deep := shallow // what a deep chain needs does not depend on the filesystem
	tests := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"CreateEmpty", func(t *testing.T) { graphtest.DriverTestCreateEmpty(t, driver.Name, noPins) }},
		{"CreateBase", func(t *testing.T) { graphtest.DriverTestCreateBase(t, driver.Name, noPins) }},
		{"CreateSnap", func(t *testing.T) { graphtest.DriverTestCreateSnap(t, driver.Name, noPins) }},
		{"CreateFromTemplate", func(t *testing.T) { graphtest.DriverTestCreateFromTemplate(t, driver.Name, noPins) }},
		{"DeepLayerRead", func(t *testing.T) { graphtest.DriverTestDeepLayerRead(t, deep, driver.Name, noPins) }},
		{"DiffApply10Files", func(t *testing.T) { graphtest.DriverTestDiffApply(t, 10, driver.Name, noPins) }},
		{"DiffApply1000Files", func(t *testing.T) { graphtest.DriverTestDiffApply(t, 1000, driver.Name, noPins) }},
		{"Changes", func(t *testing.T) { graphtest.DriverTestChanges(t, driver.Name, noPins) }},
		{"Echo", func(t *testing.T) { graphtest.DriverTestEcho(t, driver.Name, noPins) }},
		{"ListLayers", func(t *testing.T) { graphtest.DriverTestListLayers(t, driver.Name, noPins) }},
	}
	testfs.Each(t, func(t *testing.T, dir string) {
		if deep = shallow; filepath.Base(dir) == "ext4" || os.Getenv("SOAK") != "" {
			deep = deepest
		}
		t.Setenv("TMPDIR", dir)                     // where graphtest puts its graphroot
		graphtest.GetDriver(t, driver.Name, noPins) // stays for all the tests
		for _, tt := range tests {
			t.Run(tt.name, tt.run)
		}
		checkRepositories(t, dir)
	})
}

// checkRepositories checks, with our fsck and with the real one, every repository of a graphroot directly below dir.
func checkRepositories(t *testing.T, dir string) {
	t.Helper()
	repos, err := filepath.Glob(filepath.Join(dir, "*", driver.Name, "repo"))
	if err != nil || len(repos) == 0 {
		t.Fatalf("no repository below %s: %v", dir, err)
	}
	for _, path := range repos {
		fsck(t, path)
	}
}

// fsck checks one repository.
func fsck(t testing.TB, path string) {
	t.Helper()
	r, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, r)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	ostree, err := exec.LookPath("ostree")
	if err != nil {
		t.Logf("not checked with the real ostree: %v", err)
		return
	}
	if out, err := exec.Command(ostree, "fsck", "--repo="+path).CombinedOutput(); err != nil {
		t.Errorf("ostree fsck of %s: %v\n%s", path, err, out)
	}
}
