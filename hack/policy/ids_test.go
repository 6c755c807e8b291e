package policy_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAttackIDs holds that each attack A01-A20 and fault B01-B20 is in a test's name, or in the list of docs/testing.md with a
// reason; not in both for the sake of form, and in no list that has grown old.
func TestAttackIDs(t *testing.T) {
	tested := map[string][]string{}
	name := regexp.MustCompile(`(?m)^func Test([AB][0-9]{2})[A-Za-z]*\(|(?:t\.Run|check)\("([AB][0-9]{2}) `)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "../.." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") || d.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			id := m[1] + m[2]
			tested[id] = append(tested[id], strings.TrimPrefix(path, "../../"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([AB][0-9]{2}) \| (.+) \|$`).FindAllStringSubmatch(string(text), -1) {
		if len(m[2]) < 20 {
			t.Errorf("docs/testing.md: %s has no reason", m[1])
		}
		listed[m[1]] = true
	}
	for _, table := range "AB" {
		for i := 1; i <= 20; i++ {
			id := fmt.Sprintf("%c%02d", table, i)
			if len(tested[id]) == 0 && !listed[id] {
				t.Errorf("no test is named %s, and docs/testing.md does not say why", id)
			}
			delete(tested, id)
			delete(listed, id)
		}
	}
	for id, files := range tested {
		t.Errorf("%s in %q is in no table", id, files)
	}
	for id := range listed {
		t.Errorf("docs/testing.md lists %s, which is in no table", id)
	}
}
