package policy_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/hack/policy"
)

// TestModule holds the whole module to the rules.
func TestModule(t *testing.T) {
	packages, err := policy.Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]bool{}
	for _, p := range packages {
		dirs[p.Dir] = true
	}
	// A rule that sees no sources holds nothing.
	for _, dir := range []string{"store/object", "store", "layers", "selinux", "internal/overlay", "driver", "plugin", "plugin/legacy"} {
		if !dirs[dir] {
			t.Errorf("no sources found in %s", dir)
		}
	}
	for _, breach := range policy.Check(packages) {
		t.Error(breach)
	}
}

// TestBroken shows that each rule fails on a module that breaks it, and on
// nothing else in that module.
func TestBroken(t *testing.T) {
	packages, err := policy.Load("testdata/broken")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/broken.want")
	if err != nil {
		t.Fatal(err)
	}
	got, want := policy.Check(packages), strings.Split(strings.TrimSpace(string(text)), "\n")
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
