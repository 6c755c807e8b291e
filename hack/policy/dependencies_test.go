package policy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDependenciesHaveReasons: docs/design.md says for each module that ours asks for itself why it is there.
func TestDependenciesHaveReasons(t *testing.T) {
	design, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(design), "## Dependencies")
	if !found {
		t.Fatal("docs/design.md has no section on dependencies")
	}
	required := regexp.MustCompile(`(?m)^(?:require )?\t?([a-z0-9.]+\.[a-z]+/\S+) v\S+$`)
	for _, file := range []string{"../../go.mod", "../../plugin/legacy/go.mod", "../../integration/cri/go.mod"} {
		mod, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		modules := required.FindAllStringSubmatch(string(mod), -1)
		if len(modules) == 0 {
			t.Errorf("%s: no module is required", file)
		}
		for _, m := range modules {
			if strings.HasPrefix(m[1], "github.com/ostree-storage/") {
				continue
			}
			if !strings.Contains(table, "`"+m[1]+"`") {
				t.Errorf("%s requires %s: docs/design.md has no line on why", file, m[1])
			}
		}
	}
}
