package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// Both upstreams' commands: create, apply, mount, diff, changes, check, gc, delete.
func TestContainersStorage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"containers-storage", "containers-storage-legacy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cli, set := programs.Find(t, name), fixtures.Require(t)
			ours, overlay := twoStores(t)
			image := set.Need(t, "web")
			same(t, "changes", storageVerbs(t, ours, cli, image), storageVerbs(t, overlay, cli, image))
			storageRemoval(t, ours, cli)
		})
	}
}

// storageVerbs makes an image of two applied layers and a container, and gives what changed in it.
func storageVerbs(t *testing.T, s *programs.Store, cli programs.Program, image fixtures.Image) string {
	t.Helper()
	base := firstWord(s.Run(cli, "create-layer", "--id", strings.Repeat("a1", 32)))
	s.Run(cli, "apply-diff", "--file", image.Layers[0].Tar, base)
	top := firstWord(s.Run(cli, "import-layer", "--id", strings.Repeat("b2", 32), "--file", image.Layers[1].Tar, base))
	for n, id := range []string{base, top} {
		out := filepath.Join(s.Dir, "diff.tar")
		s.Run(cli, "diff", "--uncompressed", "--file", out, id)
		got, err := fixtures.DescribeTar(out)
		if err != nil {
			t.Fatal(err)
		}
		if got.DiffID != image.Layers[n].DiffID {
			t.Errorf("%s: diff of layer %d has the digest %s, want %s", s.Driver, n, got.DiffID, image.Layers[n].DiffID)
		}
	}
	s.Run(cli, "create-image", "--id", "web", "--name", "localhost/web:1", top)
	s.Run(cli, "create-container", "--id", "c", "web")
	root := firstWord(s.Run(cli, "mount", "c"))
	for path, text := range map[string]string{"etc/hosts": "changed\n", "srv/new": "new\n"} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "usr/share/doc")); err != nil {
		t.Error(err)
	}
	var records []struct{ Layer string }
	if err := json.Unmarshal([]byte(s.Run(cli, "container", "--json", "c")), &records); err != nil {
		t.Fatal(err)
	}
	changes := sorted(s.Run(cli, "changes", records[0].Layer))
	s.Run(cli, "unmount", "c")
	s.Run(cli, "check")
	s.Run(cli, "gc")
	return changes
}

// storageRemoval takes everything away again; a check in between finds nothing.
func storageRemoval(t *testing.T, s *programs.Store, cli programs.Program) {
	t.Helper()
	s.Run(cli, "delete-container", "c")
	s.Run(cli, "check")
	s.Run(cli, "delete-image", "web")
	if list := s.Run(cli, "layers", "--json"); list != "[]" && list != "null" && list != "" {
		t.Errorf("layers are left: %s", list)
	}
	s.Run(cli, "gc")
	s.Run(cli, "check")
	s.Run(cli, "wipe")
}

func firstWord(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.Fields(s + " ?")[0]
}
