package testfs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// made are the parts of names that differ from run to run, and what stands for them in a trace.
var made = []struct {
	what *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`#\d+ \(deleted\)`), "<nameless>"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9a-f]{16}`), "<name>"},
	{regexp.MustCompile(`[0-9a-f]{2}/[0-9a-f]{62}|[0-9a-f]{64}`), "<checksum>"},
	{regexp.MustCompile(`/(objects|lanes)/[0-9a-f]{2}$`), "/$1/<xx>"},
	{regexp.MustCompile(`\d{6,}`), "<number>"},
}

// unordered are the places where several threads work side by side, or whose order is the filesystem's own: what is made there counts
// only when it leaves, or with the commit that names it.
var unordered = regexp.MustCompile(`/(staging|trash|objects)(/<name>/.*|/<nameless>|/<xx>|/<checksum>\.(?:file|dirmeta|dirtree))?$`)

// Trace gives the calls as they are in every run: made-up names are masked, and what has no order is sorted, each line once.
func (o Outcome) Trace() []string {
	var trace, run []string
	kind := ""
	flush := func() {
		slices.Sort(run)
		trace = append(trace, slices.Compact(run)...)
		run, kind = nil, ""
	}
	for _, call := range withoutGaps(o.masked()) {
		now, _, _ := strings.Cut(call, " ")
		place := unordered.FindStringSubmatch(call[strings.LastIndex(call, " ")+1:])
		if place != nil && !strings.HasPrefix(now, "sync") {
			now = place[1]
		} else if now != "remove" {
			now = ""
		}
		if now == "" || now != kind {
			flush()
		}
		run, kind = append(run, call), now
	}
	flush()
	return slices.Compact(trace)
}

// masked are the calls without made-up names.
func (o Outcome) masked() (calls []string) {
	for _, call := range o.Calls {
		call = strings.ReplaceAll(strings.ReplaceAll(call+"\n", o.Below+"\n", "."), filepath.Dir(o.Below)+"/", "../")
		call = strings.TrimSuffix(call, "\n")
		for _, m := range made {
			call = m.what.ReplaceAllString(call, m.name)
		}
		calls = append(calls, call)
	}
	return calls
}

// published is what happens while a publisher holds the repository's lock.
var published = regexp.MustCompile(`^(link|mkdir) .*/(objects|lanes)/\S*$`)

// withoutGaps leaves out where a publisher let go of the lock for a moment: that depends on how long everything takes.
func withoutGaps(calls []string) (out []string) {
	publishing := false
	for i := 0; i < len(calls); i++ {
		locks := strings.HasPrefix(calls[i], "create ") && strings.HasSuffix(calls[i], "/gate") &&
			i+1 < len(calls) && strings.HasSuffix(calls[i+1], "repo/.lock")
		switch {
		case locks && publishing:
			i++
			continue
		case locks:
			out = append(out, calls[i])
			i++
			publishing = true
		case !published.MatchString(calls[i]):
			publishing = false
		}
		out = append(out, calls[i])
	}
	return out
}

// Golden compares a trace with testdata/name.trace, which REWRITE=1 writes anew: a sync that is lost, a name that comes too early, or a
// call that nobody has cut yet, is a diff.
func Golden(t *testing.T, name string, trace []string) {
	t.Helper()
	got := strings.Join(trace, "\n") + "\n"
	file := filepath.Join("testdata", name+".trace")
	if os.Getenv("REWRITE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(text), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || want[i] != line {
			t.Errorf("the order of calls differs from %s in line %d (REWRITE=1 accepts it): %s", file, i+1, line)
			return
		}
	}
	if string(text) != got {
		t.Errorf("calls are missing at the end of %s", file)
	}
}
