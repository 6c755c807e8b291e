package differential_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// broken are faults in the store's own code, each against one rule of lanes.
var broken = []struct {
	name, file, from, to string
	want                 string // what the harness must find
}{
	{"ancestors are ignored", "store/lane.go", "n uint32) bool {\n\tif s.avoid.has(ino) {", "n uint32) bool {\n\tif false {", "names of the inode"},
	{"the layer's own inodes are ignored", "store/lane.go", "ok := s.used[ino]; ok {\n\t\treturn false", "ok := s.used[ino]; ok {\n\t\treturn true", "names of the inode"},
	{"times are ignored", "store/lane.go", "(s.o.SharedTimes || timeOf(st) == it.time) && !s.full(st)", "!s.full(st)", "mtime"},
	{"empty files are shared", "store/place.go", "regular && size == 0\n\tmode", "false\n\tmode", "link count"},
	{"private files are shared", "store/place.go", "it.single = f.Private ||", "it.single =", "link count"},
	{"hardlinks are files of their own", "layers/ingest_settle.go", "unix.Linkat(from.fd, g.tree.name(home), to.fd, g.tree.name(id), 0)", "unix.Mknodat(to.fd, g.tree.name(id), unix.S_IFREG|0o644, 0)", "names of the inode"},
	{"holes are written", "store/create.go", "i-start >= holeMin {\n\t\t\treturn start, i", "false {\n\t\t\treturn start, i", "bytes of long runs of zeros that are no holes"},
}

// TestHarnessFindsBrokenRules builds the harness with a fault in the store, runs
// its first chains, and wants to see it fail.
func TestHarnessFindsBrokenRules(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("builds the store for each rule: only under SOAK; TestHarnessFindsMutations breaks trees instead")
	}
	module, err := fixtures.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			file := filepath.Join(module, b.file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(text), b.from) != 1 {
				t.Fatalf("%s has not exactly one place with %q: this test must follow the code", b.file, b.from)
			}
			dir := t.TempDir()
			fault, overlay, program := filepath.Join(dir, "fault.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "harness")
			write(t, fault, strings.Replace(string(text), b.from, b.to, 1))
			replaced, err := json.Marshal(map[string]any{"Replace": map[string]string{file: fault}})
			if err != nil {
				t.Fatal(err)
			}
			write(t, overlay, string(replaced))
			if out, err := exec.Command("go", "test", "-overlay", overlay, "-c", "-o", program, ".").CombinedOutput(); err != nil {
				t.Fatalf("build: %v: %s", err, out)
			}
			c := exec.Command(program, "-test.run", "TestChains/ext4", "-seed", "1", "-n", "80")
			c.Env = append(os.Environ(), "SOAK=")
			out, err := c.CombinedOutput()
			if err == nil || !strings.Contains(string(out), ": "+b.want+": overlay has") {
				t.Errorf("the harness did not find a difference in %q: %v\n%s", b.want, err, out)
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
