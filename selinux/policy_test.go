package selinux_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/selinux"
)

const debianPolicy = "/etc/selinux/default" // package selinux-policy-default

// oracle asks libselinux, through matchpathcon of the package selinux-utils, for the contexts of paths on this machine: so many at a time,
// since its time grows with the square of their number.
func oracle(t testing.TB, policy string, paths []string, atOnce int) []string {
	t.Helper()
	program, err := exec.LookPath("matchpathcon")
	if err != nil {
		t.Skip("no matchpathcon (package selinux-utils): nothing to compare with")
	}
	var labels []string
	for len(paths) > 0 {
		n, size := 0, 0
		for n < min(len(paths), atOnce) && size < 1<<20 {
			size += len(paths[n]) + 16
			n++
		}
		args := append([]string{"-n", "-f", filepath.Join(policy, "contexts/files/file_contexts")}, paths[:n]...)
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			t.Fatalf("matchpathcon: %v", err)
		}
		labels = append(labels, strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")...)
		paths = paths[n:]
	}
	return labels
}

func mode(t testing.TB, path string) uint32 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0
	}
	return st.Mode
}

// compare checks every path against the oracle.
func compare(t *testing.T, policy string, paths []string) {
	t.Helper()
	want := oracle(t, policy, paths, 4000)
	p, err := selinux.LoadPolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != len(paths) {
		t.Fatalf("matchpathcon gave %d lines for %d paths", len(want), len(paths))
	}
	bad := 0
	for i, path := range paths {
		got, ok := p.Label(path, mode(t, path))
		if !ok {
			got = "<<none>>"
		}
		if got != want[i] {
			if bad++; bad <= 20 {
				t.Errorf("%s: %s, libselinux says %s", path, got, want[i])
			}
		}
	}
	t.Logf("%d paths, %d differences", len(paths), bad)
}

// machinePaths are the paths of this machine's own root, without other filesystems.
func machinePaths(t testing.TB, most int) []string {
	var paths []string
	for _, top := range []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/opt", "/run", "/sbin", "/srv", "/usr", "/var"} {
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what vanishes while we walk is no concern of this test
			}
			if len(paths) >= most {
				return fs.SkipAll
			}
			if !strings.Contains(path, "\n") {
				paths = append(paths, path)
			}
			return nil
		})
	}
	return paths
}

func TestDebianPolicyOnARealRoot(t *testing.T) {
	if _, err := os.Stat(debianPolicy); err != nil {
		t.Skip("no policy in " + debianPolicy + " (package selinux-policy-default)")
	}
	paths := machinePaths(t, 60000)
	if every := len(paths) / 15000; every > 1 && os.Getenv("SOAK") == "" { // matchpathcon takes its time
		for i := range len(paths) / every {
			paths[i] = paths[every*i]
		}
		paths = paths[:len(paths)/every]
	}
	if len(paths) < 10000 {
		t.Fatalf("only %d paths to compare", len(paths))
	}
	compare(t, debianPolicy, paths)
}

// write makes a policy directory of the given files.
func write(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "contexts/files"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "contexts/files", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// everyRule touches each kind of rule: types, wildcards against exact paths, order, escapes, classes, look-ahead,
// alternation outside a group, <<none>>, homedirs and local files, substitutions in both files.
var everyRule = map[string]string{
	"file_contexts": `
# a comment
/.*	system_u:object_r:default_t:s0
/	-d	system_u:object_r:root_t:s0
/a(/.*)?	system_u:object_r:a_t:s0
/a/exact	system_u:object_r:exact_t:s0
/a/e.*	system_u:object_r:wild_t:s0
/a/file	--	system_u:object_r:file_t:s0
/a/file	-d	system_u:object_r:dir_t:s0
/a/link	-l	system_u:object_r:link_t:s0
/a/pipe	-p	system_u:object_r:pipe_t:s0
/a/sock	-s	system_u:object_r:sock_t:s0
/a/chr	-c	system_u:object_r:chr_t:s0
/a/dot\.d	system_u:object_r:dot_t:s0
/a/[0-9]+x?	system_u:object_r:class_t:s0
/a/(one|two)/.*\.so(\.[^/]*)*	--	system_u:object_r:lib_t:s0
/none(/.*)?	<<none>>
/none/some	system_u:object_r:some_t:s0
/ahead/(?!not)[^/]*	system_u:object_r:ahead_t:s0
/ahead/(.)\1	system_u:object_r:back_t:s0
/top/x|/y/z	system_u:object_r:alternative_t:s0
/stem/?	system_u:object_r:stem_t:s0
/multi//slash	system_u:object_r:slash_t:s0
`,
	"file_contexts.homedirs":  "/home/[^/]+/.+	user_u:object_r:home_t:s0\n/root/.*	root:object_r:home_t:s0\n",
	"file_contexts.local":     "/a/override	system_u:object_r:local_t:s0\n/a/e[a-z]*	system_u:object_r:localwild_t:s0\n",
	"file_contexts.subs":      "/alias /a\n/deep/alias /dist\n/toroot /\n/alias/inner /none/some\n",
	"file_contexts.subs_dist": "/dist /a/one\n/lib64 /a/two\n",
}

func TestEveryRule(t *testing.T) {
	paths := []string{"/", "/a", "/a/b", "/a/exact", "/a/exactly", "/a/e", "/a/file", "/a/dot.d", "/a/dotxd", "/a/12", "/a/12x",
		"/a/12xx", "/a/one/l.so", "/a/one/l.so.1.2", "/a/two/d/l.so", "/a/three/l.so", "/none", "/none/x", "/none/some", "/ahead/yes",
		"/ahead/not", "/ahead/notes", "/ahead/zz", "/ahead/zy", "/top/x", "/top/xyz", "/y/z", "/a/y/z", "/stem", "/multi/slash",
		"/multi//slash", "//a///exact", "/home/joe/x", "/home/joe", "/root/x", "/a/override", "/alias", "/alias/exact", "/aliased", "/alias/inner",
		"/alias/inner/x", "/deep/alias/l.so", "/toroot", "/toroot/a/exact", "/dist/l.so", "/lib64/l.so", "relative", "/a/sp ace", "/a/ö"}
	compare(t, write(t, everyRule), paths)
}

func TestFileTypes(t *testing.T) {
	p, err := selinux.LoadPolicy(write(t, everyRule))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		mode uint32
		want string
	}{
		{"/a/file", unix.S_IFREG | 0o644, "file_t"}, {"/a/file", unix.S_IFDIR | 0o755, "dir_t"}, {"/a/file", unix.S_IFLNK, "a_t"},
		{"/a/link", unix.S_IFLNK, "link_t"}, {"/a/pipe", unix.S_IFIFO, "pipe_t"}, {"/a/sock", unix.S_IFSOCK, "sock_t"},
		{"/a/chr", unix.S_IFCHR, "chr_t"}, {"/a/chr", unix.S_IFBLK, "a_t"}, {"/a/chr", 0, "chr_t"},
	} {
		if got, _ := p.Label(c.path, c.mode); !strings.Contains(got, ":"+c.want+":") {
			t.Errorf("Label(%s, %o) = %s, want %s", c.path, c.mode, got, c.want)
		}
	}
}

func TestBrokenPolicies(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		line       int
		says       string
	}{
		"expression": {"file_contexts", "/ok	a:b:c\n/x(	a:b:c\n", 2, "missing closing )"},
		"type":       {"file_contexts", "/x	-q	a:b:c\n", 1, `unknown file type "-q"`},
		"fields":     {"file_contexts", "/x\n", 1, "1 fields"},
		"context":    {"file_contexts.local", "# one\n\n/x	nonsense\n", 3, "is not a context"},
		"part":       {"file_contexts.local", "/x	a::c\n", 1, "an empty part"},
		"ascii":      {"file_contexts", "/\xff	a:b:c\n", 1, "is not ASCII"},
		"cycle":      {"file_contexts.subs", "/a /b\n/b /a\n", 2, "stands for itself"},
		"alone":      {"file_contexts.subs_dist", "/a\n", 1, "what it stands for"},
		"huge":       {"file_contexts", strings.Repeat("#"+strings.Repeat("x", 1022)+"\n", 100<<10), 16<<10 + 1, "longer than"},
		"long line":  {"file_contexts", "/" + strings.Repeat("x", 2<<20) + "	a:b:c\n", 1, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"file_contexts": "/.*	a:b:c\n", c.file: c.text}
			_, err := selinux.LoadPolicy(write(t, files))
			var broken *selinux.PolicyError
			if !errors.As(err, &broken) {
				t.Fatalf("LoadPolicy: %v, want a *PolicyError", err)
			}
			if filepath.Base(broken.File) != c.file || broken.Line != c.line || !strings.Contains(broken.Reason, c.says) {
				t.Errorf("got %v, want %s:%d: …%s…", err, c.file, c.line, c.says)
			}
		})
	}
	if _, err := selinux.LoadPolicy(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadPolicy of an empty directory: %v", err)
	}
}

// TestFasterThanLibselinux holds a ratio in one run, no absolute time.
func TestFasterThanLibselinux(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	if _, err := os.Stat(debianPolicy); err != nil {
		t.Skip("no policy in " + debianPolicy + " (package selinux-policy-default)")
	}
	paths := machinePaths(t, 20000)
	took := func(fn func()) time.Duration {
		start := time.Now()
		fn()
		return time.Since(start)
	}
	theirs := took(func() { oracle(t, debianPolicy, paths, len(paths)) })
	ours := took(func() {
		p, err := selinux.LoadPolicy(debianPolicy)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for _, path := range paths {
			label, _ := p.Label(path, mode(t, path))
			fmt.Fprintln(&out, label)
		}
	})
	ratio := float64(ours) / float64(theirs)
	t.Logf("%d paths: %.2f of matchpathcon's time", len(paths), ratio)
	if ratio > 0.5 {
		t.Errorf("%.2f of matchpathcon's time, at most 0.5 wanted", ratio)
	}
}
