package plugin_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

const cutVariable = "OSTREE_TEST_CUT"

// TestPowerCut cuts the power the moment an image was pulled, and then the moment it was tagged, by a program that has the
// store still open. What was acknowledged is there afterwards: this filesystem has the flag for it.
func TestPowerCut(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	names := []string{"localhost/img:1"}
	for _, what := range []string{"pull", "tag"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUntilThePowerGoes$", "-test.v")
		cmd.Env = append(os.Environ(), cutVariable+"="+what+":"+dir)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%s: %v\n%s", what, err, out)
		}
		if err := testfs.Remount(dir); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		img, err := s.Image("img")
		if err != nil {
			t.Fatalf("after a cut behind a %s: %v", what, err)
		}
		if what == "tag" {
			names = append(names, "localhost/tagged:1")
		}
		slices.Sort(img.Names)
		if !slices.Equal(img.Names, names) {
			t.Errorf("after a cut behind a %s the image is called %q, and not %q", what, img.Names, names)
		}
		wantDiff(t, s, "img-0", baseLayer(t))
		wantDiff(t, s, "img-1", changeLayer(t))
		wantSound(t, s)
		closeStore(t, s)
		fsck(t, filepath.Join(dir, "root", driver.Name, "repo"))
	}
}

// TestUntilThePowerGoes is the program of TestPowerCut.
func TestUntilThePowerGoes(t *testing.T) {
	what, dir, ok := strings.Cut(os.Getenv(cutVariable), ":")
	if !ok {
		t.Skip("this is a part of TestPowerCut, which runs it in a process of its own")
	}
	s := openStore(t, dir)
	if what == "pull" {
		putImage(t, s, "img", baseLayer(t), changeLayer(t))
	} else if err := s.AddNames("img", []string{"localhost/tagged:1"}); err != nil {
		t.Fatal(err)
	}
	if err := testfs.Shutdown(dir); err != nil { // and the store is never closed
		t.Fatal(err)
	}
}
