package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// driverList is a line of a test that names the drivers that it runs for, overlay in all its variants among them.
var driverList = regexp.MustCompile(`(?m)^(\s*(?:[a-z]+\|)*overlay\*(?:\|[a-z]+)*)\)$`)

// adopt copies the tests, and puts the driver on their lists of drivers. There has to be one.
func adopt(source, dir string) error {
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		return fmt.Errorf("%w: hack/build-containers-storage fetches the tests", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.bats"))
	if err != nil {
		return err
	}
	var lists int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		lists += len(driverList.FindAll(text, -1))
		if err := os.WriteFile(file, driverList.ReplaceAll(text, []byte("$1|ostree)")), 0o644); err != nil {
			return err
		}
	}
	if lists == 0 {
		return fmt.Errorf("no test in %s names the drivers that it runs for", source)
	}
	return nil
}

// A result is what came of one test.
type result struct {
	passed bool
	skip   string // why it was skipped
	text   string // what it printed, where it failed
}

var (
	tapLine = regexp.MustCompile(`^(not )?ok \d+ (.*?)(?: # skip ?(.*))?$`)
	// debugLine is what the command prints at every call.
	debugLine = regexp.MustCompile(`^# time="[^"]*" level=debug`)
)

// parse reads what bats prints, by the names of the tests.
func parse(tap string) map[string]result {
	results := map[string]result{}
	var name string
	for line := range strings.Lines(tap) {
		line = strings.TrimRight(line, "\n")
		if m := tapLine.FindStringSubmatch(line); m != nil {
			name = m[2]
			results[name] = result{passed: m[1] == "", skip: m[3]}
			continue
		}
		r, ok := results[name]
		if !ok || r.passed || debugLine.MatchString(line) || len(r.text) > 2000 {
			continue
		}
		r.text += "      " + line + "\n"
		results[name] = r
	}
	return results
}
