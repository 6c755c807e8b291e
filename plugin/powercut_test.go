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

const (
	cutVariable  = "OSTREE_TEST_CUT"
	shutVariable = "OSTREE_TEST_SHUT"
)

// TestPowerCut cuts the power the moment an image was pulled, and then the moment it was tagged, by a program that has the
// store still open. What was acknowledged is there afterwards: this filesystem has the flag for it.
func TestPowerCut(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	names := []string{"localhost/img:1"}
	for _, what := range []string{"pull", "tag"} {
		runUntilThePowerGoes(t, what, dir)
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

func runUntilThePowerGoes(t *testing.T, what, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestUntilThePowerGoes$", "-test.v")
	cmd.Env = append(os.Environ(), cutVariable+"="+what+":"+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
}

// TestUntilThePowerGoes is the program of TestPowerCut and TestPowerCutBesideAnotherProgram.
func TestUntilThePowerGoes(t *testing.T) {
	what, dir, ok := strings.Cut(os.Getenv(cutVariable), ":")
	if !ok {
		t.Skip("this is a part of TestPowerCut and its like, which runs it in a process of its own")
	}
	s := openStore(t, dir)
	if what != "tag" {
		putImage(t, s, "img", baseLayer(t), changeLayer(t))
	}
	if what != "pull" {
		if err := s.AddNames("img", []string{"localhost/tagged:1"}); err != nil {
			t.Fatal(err)
		}
	}
	if what == "shut" {
		shutByAnother(t, dir)
		closeStore(t, s)
	}
	if err := testfs.Shutdown(dir); err != nil { // and the store is closed no more
		t.Fatal(err)
	}
}

// TestPowerCutBesideAnotherProgram cuts the power behind a program that tagged an image and has ended its use of the store, on a
// filesystem without the flag. Another program did the same in between, so that containers/storage gave up the driver under which the
// tag was made: whatever comes in its place has to write it.
func TestPowerCutBesideAnotherProgram(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := testfs.Mount(t, kind)
			runUntilThePowerGoes(t, "shut", dir)
			if err := testfs.Remount(dir); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, dir)
			defer closeStore(t, s)
			if img, err := s.Image("localhost/tagged:1"); err != nil || img.ID != "img" {
				t.Errorf("the image that was tagged: %v, %v", img, err)
			}
		})
	}
}

// shutByAnother has another program open a store and shut it down.
func shutByAnother(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestShut$", "-test.v")
	cmd.Env = append(os.Environ(), shutVariable+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestShut is the other program of TestPowerCutBesideAnotherProgram.
func TestShut(t *testing.T) {
	dir := os.Getenv(shutVariable)
	if dir == "" {
		t.Skip("this is a part of TestPowerCutBesideAnotherProgram, which runs it in a process of its own")
	}
	closeStore(t, openStore(t, dir))
}
