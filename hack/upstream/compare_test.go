package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got := parse("1..4\nok 1 one\nnot ok 2 two words\n# (in test file)\n# time=\"x\" level=debug msg=no\n# why\nok 3 three # skip no tar\nnot ok 4 four\n")
	if len(got) != 4 || !got["one"].passed || got["two words"].passed || got["three"].skip != "no tar" || got["four"].passed {
		t.Fatalf("parsed as %+v", got)
	}
	if text := got["two words"].text; !strings.Contains(text, "why") || strings.Contains(text, "level=debug") {
		t.Errorf("the failure prints %q", text)
	}
}

// Whatever is better or worse than the list says is wrong.
func TestCompare(t *testing.T) {
	pass, fail, skip := result{passed: true}, result{}, result{passed: true, skip: "why"}
	listed := map[string]string{"listed": "reason"}
	for name, c := range map[string]struct {
		overlay, ours result
		wrong         string
	}{
		"equal":   {pass, pass, ""},
		"worse":   {pass, fail, "fails with the driver"},
		"better":  {fail, pass, ""},
		"both":    {fail, fail, ""},
		"skipped": {pass, skip, "is skipped with the driver"},
		"neither": {skip, skip, ""},
		"listed":  {pass, pass, "take it off"},
	} {
		overlay := map[string]result{name: c.overlay, "listed": pass}
		ours := map[string]result{"listed": fail, name: c.ours}
		_, wrong := compare(overlay, ours, listed, false)
		if text := strings.Join(wrong, "\n"); (text == "") != (c.wrong == "") || !strings.Contains(text, c.wrong) {
			t.Errorf("%s: %q, want %q", name, text, c.wrong)
		}
	}
	// Where neither can run it, nothing is known about an exception.
	if _, wrong := compare(map[string]result{"listed": skip}, map[string]result{"listed": skip}, listed, false); len(wrong) != 0 {
		t.Errorf("skipped with both: %q", wrong)
	}
	if _, wrong := compare(map[string]result{"one": pass}, map[string]result{"one": pass}, listed, false); len(wrong) != 1 {
		t.Errorf("an exception for no test: %q", wrong)
	}
	if _, wrong := compare(nil, nil, nil, false); len(wrong) != 1 {
		t.Errorf("no tests at all: %q", wrong)
	}
}

func TestAdopt(t *testing.T) {
	source, dir := t.TempDir(), t.TempDir()
	text := "\tcase \"$STORAGE_DRIVER\" in\n\toverlay*|vfs)\n\t\t;;\n\tbtrfs|overlay*|vfs|zfs)\n\t;;\n\toverlay)\n"
	if err := os.WriteFile(filepath.Join(source, "a.bats"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := adopt(source, dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "a.bats"))
	if want := "\tcase \"$STORAGE_DRIVER\" in\n\toverlay*|vfs|ostree)\n\t\t;;\n\tbtrfs|overlay*|vfs|zfs|ostree)\n\t;;\n\toverlay)\n"; err != nil || string(got) != want {
		t.Errorf("adopted as %q, %v", got, err)
	}
	if err := adopt(t.TempDir(), t.TempDir()); err == nil {
		t.Error("tests without a list of drivers were taken")
	}
}
