package pins_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/ostree-storage/ostree-storage/pins"
)

// Our drop-in repeats what the administrator listed: a list of a later file replaces one of an earlier.
func TestCRIOList(t *testing.T) {
	c := &pins.CRIO{Dir: filepath.Join(t.TempDir(), "crio")}
	if c.Configured() {
		t.Error("CRI-O is configured without a directory")
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(c.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("crio.conf", "[crio.image]\npinned_images = [\"lost\"]\n")
	write("crio.conf.d/10-a.conf", "[crio.image]\npinned_images = [\"registry.example/pause:*\"]\n[crio.runtime]\nx = 1\n")
	write("crio.conf.d/20-b.conf", "[crio.image]\npause_image = \"p\"\n")
	if !c.Configured() {
		t.Error("CRI-O is not configured")
	}
	keep := func(want bool, names ...string) {
		t.Helper()
		if changed, err := c.Keep(names); err != nil || changed != want {
			t.Errorf("keep %v: %v, %v", names, changed, err)
		}
	}
	keep(false)
	keep(true, "localhost/os:1", `odd"name`)
	keep(false, "localhost/os:1", `odd"name`)
	var got struct {
		CRIO struct {
			Image struct {
				Pinned []string `toml:"pinned_images"`
			} `toml:"image"`
		} `toml:"crio"`
	}
	if _, err := toml.DecodeFile(c.Path(), &got); err != nil {
		t.Fatal(err)
	}
	if list := strings.Join(got.CRIO.Image.Pinned, " "); list != `localhost/os:1 odd"name registry.example/pause:*` {
		t.Errorf("the list is %s", list)
	}
	keep(true)
	if _, err := os.Stat(c.Path()); !os.IsNotExist(err) {
		t.Errorf("the drop-in of no pins: %v", err)
	}
	write("crio.conf.d/10-a.conf", "not toml [")
	if _, err := c.Keep([]string{"x"}); err == nil || !strings.Contains(err.Error(), "10-a.conf") {
		t.Errorf("a configuration that cannot be read: %v", err)
	}
}
