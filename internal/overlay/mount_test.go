package overlay_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
}

// dirs makes directories under base and returns their paths.
func dirs(t testing.TB, base string, names ...string) []string {
	t.Helper()
	var paths []string
	for _, name := range names {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t testing.TB, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != text {
		t.Errorf("%s holds %q, %v; want %q", path, b, err, text)
	}
}

// layers makes a mount of n lowers under base: file "top" says which lower is nearest, file "<i>" is in lower i.
func layers(t testing.TB, base string, n int) *overlay.Mount {
	t.Helper()
	d := dirs(t, base, "upper", "work", "merged", "empty")
	m := &overlay.Mount{Upper: d[0], Work: d[1], Target: d[2], Empty: d[3], UserXattr: inUserNS}
	for i := range n {
		dir := dirs(t, base, fmt.Sprintf("lower-%d", i))[0]
		write(t, filepath.Join(dir, fmt.Sprint(i)), "")
		write(t, filepath.Join(dir, "top"), fmt.Sprint(i))
		m.Lowers = append(m.Lowers, dir)
	}
	return m
}

// mount makes the mount until the test ends.
func mount(t testing.TB, m *overlay.Mount, w overlay.Way) {
	t.Helper()
	if err := m.DoBy(w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := overlay.Unmount(m.Target); err != nil {
			t.Error(err)
		}
	})
}

// mountLine returns the line of mountinfo for path.
func mountLine(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); string(f[4]) == path {
			return string(line)
		}
	}
	return ""
}

func eachWay(t *testing.T, f func(t *testing.T, w overlay.Way)) {
	needRoot(t)
	for name, w := range overlay.Ways {
		t.Run(name, func(t *testing.T) { f(t, w) })
	}
}

func TestReadWrite(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := layers(t, t.TempDir(), 3)
		mount(t, m, w)
		wantFile(t, m.Target+"/top", "0")
		wantFile(t, m.Target+"/2", "")
		write(t, m.Target+"/new", "n")
		wantFile(t, m.Upper+"/new", "n")
		write(t, m.Target+"/top", "changed")
		wantFile(t, m.Lowers[0]+"/top", "0")
		if err := os.Remove(m.Target + "/1"); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(m.Upper+"/1", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("whiteout: mode %o, device %d, %v", st.Mode, st.Rdev, err)
		}
	})
}

func TestReadOnly(t *testing.T) {
	tests := map[string]struct {
		lowers           int
		upper, empty, by bool
	}{
		"one lower":           {lowers: 1, empty: true},
		"one lower, no empty": {lowers: 1},
		"two lowers":          {lowers: 2},
		"upper and one lower": {lowers: 1, upper: true},
		"upper alone":         {upper: true},
		"nothing":             {},
		"by extra":            {lowers: 2, by: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w overlay.Way) {
				m := layers(t, t.TempDir(), tt.lowers)
				write(t, m.Upper+"/u", "u")
				m.ReadOnly = !tt.by
				if tt.by {
					m.Extra = []string{"ro"}
				}
				if !tt.upper {
					m.Upper = ""
				}
				if !tt.empty {
					m.Empty = ""
				}
				mount(t, m, w)
				if tt.lowers > 0 {
					wantFile(t, m.Target+"/top", "0")
				}
				if tt.upper {
					wantFile(t, m.Target+"/u", "u")
				}
				names, err := os.ReadDir(m.Target)
				if want := tt.lowers + min(tt.lowers, 1); err != nil || len(names) != want && !tt.upper {
					t.Errorf("%d names, %v; want %d", len(names), err, want)
				}
				if err := os.WriteFile(m.Target+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
					t.Errorf("write: %v, want EROFS", err)
				}
				if line := mountLine(t, m.Target); !strings.Contains(line, " ro,") {
					t.Errorf("mountinfo: %s", line)
				}
			})
		})
	}
}

func TestNoLowers(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := layers(t, t.TempDir(), 0)
		mount(t, m, w)
		write(t, m.Target+"/a", "a")
		wantFile(t, m.Upper+"/a", "a")
		var dir, file unix.Stat_t
		if err := errors.Join(unix.Stat(m.Target, &dir), unix.Stat(m.Target+"/a", &file)); err != nil || dir.Dev != file.Dev {
			t.Errorf("st_dev of directory %#x, of file %#x, %v", dir.Dev, file.Dev, err)
		}
	})
}

func TestB18OddPaths(t *testing.T) {
	long := strings.Repeat(strings.Repeat("d", 250)+"/", 20) // 5,020 bytes
	names := map[string]string{
		"colon": "a:b", "comma": "a,b", "backslash": `a\b`, "trailing backslash": `a\`, "escaped": `a\:b\,c`, "space": "a b",
		"newline": "a\nb", "quote": `a"b`, "lone quote": `"`, "equals": "upperdir=x", "not UTF-8": "a\xff\xfeb", "dots": "...", "long": long,
	}
	for name, dir := range names {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w overlay.Way) {
				base := t.TempDir()
				if name != "long" {
					m := layers(t, filepath.Join(base, dir), 2)
					mount(t, m, w)
					wantFile(t, m.Target+"/top", "0")
					write(t, m.Target+"/new", "n")
					wantFile(t, m.Upper+"/new", "n")
					return
				}
				testLong(t, base, dir, w)
			})
		})
	}
}

// testLong mounts beyond what a system call takes for a path.
func testLong(t *testing.T, base, dir string, w overlay.Way) {
	old, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(base)
	for name := range strings.SplitSeq(strings.TrimRight(dir, "/"), "/") {
		if err := errors.Join(os.Mkdir(name, 0o755), os.Chdir(name)); err != nil {
			t.Fatal(err)
		}
	}
	short := layers(t, ".", 2)
	if err := os.Chdir(old); err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return base + "/" + dir + p }
	m := &overlay.Mount{Upper: at(short.Upper), Work: at(short.Work), Target: at(short.Target), UserXattr: inUserNS}
	for _, l := range short.Lowers {
		m.Lowers = append(m.Lowers, at(l))
	}
	if err := m.DoBy(w); err != nil {
		t.Fatal(strings.ReplaceAll(err.Error(), dir, "<long>"))
	}
	if ok, err := overlay.Mounted(m.Target); !ok || err != nil {
		t.Errorf("mounted: %v, %v", ok, err)
	}
	if err := overlay.Unmount(m.Target); err != nil {
		t.Error(err)
	}
	if ok, err := overlay.Mounted(m.Target); ok || err != nil {
		t.Errorf("mounted after unmount: %v, %v", ok, err)
	}
}

func TestB18ManyLowers(t *testing.T) {
	needRoot(t)
	m := layers(t, filepath.Join(t.TempDir(), strings.Repeat("n", 200)), overlay.MaxLowers)
	eachWay(t, func(t *testing.T, w overlay.Way) {
		mount(t, m, w)
		for i := range overlay.MaxLowers {
			wantFile(t, fmt.Sprintf("%s/%d", m.Target, i), "")
		}
		wantFile(t, m.Target+"/top", "0")
	})
}

func TestTooManyLowers(t *testing.T) {
	needRoot(t)
	m := layers(t, t.TempDir(), 0)
	m.Lowers = slices.Repeat([]string{m.Empty}, overlay.MaxLowers+1)
	if err := m.Do(); err == nil || !strings.Contains(err.Error(), "501 lower directories, and overlayfs takes 500") {
		t.Error(err)
	}
}

func TestB06Options(t *testing.T) {
	tests := map[string]struct {
		extra      []string
		line, none []string
	}{
		"own": {none: []string{"metacopy=on", "index=on", "volatile", "nodev"}},
		"flags": {
			extra: []string{"nodev", "nosuid", "noexec", "noatime", "nodiratime", "defaults", "", "rw"},
			line:  []string{"rw,nosuid,nodev,noexec,noatime,nodiratime "},
		},
		"cleared":  {extra: []string{"nodev", "dev", "noatime", "relatime"}, line: []string{"rw,relatime "}},
		"sync":     {extra: []string{"sync"}, line: []string{"rw,sync"}},
		"metacopy": {extra: []string{"metacopy=on"}, line: []string{"metacopy=on"}},
		"volatile": {extra: []string{"volatile"}, line: []string{"volatile"}},
		"index":    {extra: []string{"index=on"}, line: []string{"index=on"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w overlay.Way) {
				m := layers(t, t.TempDir(), 2)
				m.Extra = tt.extra
				mount(t, m, w)
				line := mountLine(t, m.Target)
				for _, want := range tt.line {
					if !strings.Contains(line, want) {
						t.Errorf("no %q in %s", want, line)
					}
				}
				for _, never := range tt.none {
					if strings.Contains(line, never) {
						t.Errorf("%q in %s", never, line)
					}
				}
			})
		})
	}
}

func TestVolatile(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := layers(t, t.TempDir(), 1)
		m.Volatile = true
		for range 2 { // the second finds the mark of the first
			if err := m.DoBy(w); err != nil {
				t.Fatal(err)
			}
			if line := mountLine(t, m.Target); !strings.Contains(line, "volatile") {
				t.Errorf("mountinfo: %s", line)
			}
			if err := overlay.Unmount(m.Target); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(m.Work + "/work/incompat/volatile"); err != nil {
				t.Errorf("no mark of a volatile mount: %v", err)
			}
		}
		m.Volatile = false
		mount(t, m, w)
	})
}

// kernelWords begins an expectation that only a mount context's log can meet.
const kernelWords = "kernel: "

func oldKernel(t *testing.T) bool {
	t.Helper()
	f, err := overlay.Probe(t.TempDir())
	return err == nil && !f.LowerFD
}

func TestErrors(t *testing.T) {
	needRoot(t)
	tests := map[string]struct {
		change func(t *testing.T, m *overlay.Mount)
		want   []string
		is     error
	}{
		"no lower":       {func(_ *testing.T, m *overlay.Mount) { m.Lowers[1] = "/nowhere/x" }, []string{`"`, "/nowhere/x"}, fs.ErrNotExist},
		"lower is file":  {func(_ *testing.T, m *overlay.Mount) { m.Lowers[1] = m.Lowers[0] + "/top" }, []string{"lower-0/top"}, unix.ENOTDIR},
		"no upper":       {func(_ *testing.T, m *overlay.Mount) { m.Upper += "-x" }, []string{"upper-x"}, fs.ErrNotExist},
		"no work":        {func(_ *testing.T, m *overlay.Mount) { m.Work += "-x" }, []string{"work-x"}, fs.ErrNotExist},
		"no target":      {func(_ *testing.T, m *overlay.Mount) { m.Target += "-x" }, []string{"merged-x"}, fs.ErrNotExist},
		"empty target":   {func(_ *testing.T, m *overlay.Mount) { m.Target = "" }, []string{"no target"}, nil},
		"empty lower":    {func(_ *testing.T, m *overlay.Mount) { m.Lowers[0] = "" }, []string{"lower directory 0 has no path"}, nil},
		"work alone":     {func(_ *testing.T, m *overlay.Mount) { m.Upper = "" }, []string{"must be read-only"}, nil},
		"unknown option": {func(_ *testing.T, m *overlay.Mount) { m.Extra = []string{"frob=1"} }, []string{kernelWords + `"frob=1"`, kernelWords + "Unknown parameter"}, unix.EINVAL},
		"bad value":      {func(_ *testing.T, m *overlay.Mount) { m.Extra = []string{"index=maybe"} }, []string{kernelWords + `"index=maybe"`, kernelWords + "kernel:"}, unix.EINVAL},
		"bind":           {func(_ *testing.T, m *overlay.Mount) { m.Extra = []string{"rshared"} }, []string{`"rshared"`}, nil},
		"layer option":   {func(_ *testing.T, m *overlay.Mount) { m.Extra = []string{"lowerdir=/"} }, []string{`"lowerdir=/"`}, nil},
		"long option":    {func(_ *testing.T, m *overlay.Mount) { m.Extra = []string{strings.Repeat("x", 300)} }, []string{"255 bytes"}, nil},
		"label":          {func(_ *testing.T, m *overlay.Mount) { m.Label = `a"b` }, []string{"label"}, nil},
		"same lower":     {func(_ *testing.T, m *overlay.Mount) { m.Lowers[1] = m.Lowers[0] }, []string{"overlap"}, unix.ELOOP},
		"work in upper": {func(t *testing.T, m *overlay.Mount) {
			m.Work = dirs(t, m.Upper, "w")[0]
		}, []string{"one in the other"}, unix.EINVAL},
		"other filesystem": {func(t *testing.T, m *overlay.Mount) {
			m.Work = t.TempDir()
			tmpfs(t, m.Work)
		}, []string{"different filesystems"}, unix.EINVAL},
		"bad map": {func(_ *testing.T, m *overlay.Mount) { m.IDMap = &overlay.IDMap{} }, []string{"uid map: no ranges"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := layers(t, t.TempDir(), 2)
			target := m.Target
			tt.change(t, m)
			err := m.Do()
			if err == nil {
				overlay.Unmount(target)
				t.Fatal("no error")
			}
			for _, want := range append(tt.want, "mount overlay at") {
				if strings.HasPrefix(want, kernelWords) && oldKernel(t) {
					continue // mount(2) says nothing
				}
				want = strings.TrimPrefix(want, kernelWords)
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("is not %v: %v", tt.is, err)
			}
			if line := mountLine(t, target); line != "" {
				t.Errorf("left behind: %s", line)
			}
		})
	}
}
