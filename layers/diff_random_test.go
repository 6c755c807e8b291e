package layers_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// randomTree makes random overlay layers: through real overlay mounts, or by writing whiteouts and opaque marks by hand.
type randomTree struct {
	t    testing.TB
	r    *rand.Rand
	base string
	n    int
	// visible leaves out what containers/storage does not compare, or cannot extract again.
	visible bool
	few     bool // few names and many symlinks: what is a directory here is a symlink there
}

func newRandomTree(t testing.TB, base string, seed uint64) *randomTree {
	return &randomTree{t: t, r: rand.New(rand.NewPCG(seed, 0x6f7374726565)), base: base}
}

// needRoot skips what cannot be done without privileges.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: overlay mounts, devices and owners cannot be made")
	}
}

// tmpfs mounts a fresh filesystem in memory: trees of many small files are made quickly there.
func tmpfs(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1g,mode=755"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func (g *randomTree) check(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *randomTree) dir(name string) string {
	g.n++
	d := filepath.Join(g.base, fmt.Sprintf("%d-%s", g.n, name))
	g.check(os.MkdirAll(d, 0o755))
	return d
}

// mount mounts an overlay of lowers, nearest first, and calls do with the merged directory.
func (g *randomTree) mount(upper string, lowers []string, do func(merged string)) {
	g.t.Helper()
	merged := g.dir("merged")
	opts := "index=off,redirect_dir=off,metacopy=off"
	if upper != "" {
		opts += ",upperdir=" + upper + ",workdir=" + g.dir("work")
	}
	if upper == "" && len(lowers) == 1 {
		lowers = append(lowers, g.dir("empty"))
	}
	opts += ",lowerdir=" + strings.Join(lowers, ":")
	g.check(unix.Mount("overlay", merged, "overlay", 0, opts))
	defer func() { g.check(unix.Unmount(merged, 0)) }()
	do(merged)
}

// chain makes n layers, each by random work in a mount over those before, and returns them nearest first.
func (g *randomTree) chain(n, work int) []string {
	var lowers []string
	for range n {
		upper := g.dir("layer")
		if len(lowers) == 0 {
			g.work(upper, work)
		} else {
			g.mount(upper, lowers, func(merged string) { g.work(merged, work) })
		}
		lowers = append([]string{upper}, lowers...)
	}
	return lowers
}

var (
	plainNames = []string{"a", "b", "c", "d", "e", "a.b", "a-b", "a b"}
	oddNames   = []string{
		"é", ".wh.x", "x=y", "nl\nnl", strings.Repeat("n", 120), strings.Repeat("ü", 127), "\xff\xfe", "raw\x80", `back\slash`, ".wh..wh.aufs", "..x",
	}
	oddTimes = []unix.Timespec{
		{Sec: -1, Nsec: 999999999}, {Sec: -86400 * 365, Nsec: 5}, {Sec: 0, Nsec: 0}, {Sec: 0, Nsec: 1}, {Sec: 1 << 31, Nsec: 7},
		{Sec: 1<<33 + 1, Nsec: 123456789}, {Sec: 1700000000, Nsec: 0}, {Sec: 1700000000, Nsec: 500000000},
	}
	owners = []int{0, 0, 1, 1000, 65534, 2097151, 2097152, 3000000, 100000, 100005}
)

func (g *randomTree) oneIn(n int) bool { return g.r.IntN(n) == 0 }

func pick[T any](g *randomTree, from []T) T { return from[g.r.IntN(len(from))] }

func (g *randomTree) name() string {
	if g.few {
		return pick(g, plainNames[:3])
	}
	if !g.oneIn(5) {
		return pick(g, plainNames)
	}
	for {
		// A tar cannot say that a name is no whiteout.
		if name := pick(g, oddNames); !g.visible || !strings.HasPrefix(name, ".wh.") {
			return name
		}
	}
}

// paths lists what is in a tree, relative to it; directories whose names are not UTF-8 are never made.
func (g *randomTree) paths(root string) (all, dirs []string) {
	dirs = []string{"."}
	g.check(filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		all = append(all, rel)
		if d.IsDir() {
			dirs = append(dirs, rel)
		}
		return nil
	}))
	return all, dirs
}

// work does n random things in a tree. What the kernel refuses is passed over: the point is what it leaves behind.
func (g *randomTree) work(root string, n int) {
	for range n {
		all, dirs := g.paths(root)
		if len(all) == 0 || g.oneIn(2) {
			g.create(filepath.Join(root, pick(g, dirs), g.name()), root, all)
			continue
		}
		g.change(filepath.Join(root, pick(g, all)), root, all, dirs)
	}
}

func (g *randomTree) create(p, root string, all []string) {
	kind := g.r.IntN(16)
	if g.few && g.oneIn(3) {
		kind = 5
	}
	switch kind {
	case 0, 1, 2, 3, 4:
		if utf8.ValidString(filepath.Base(p)) {
			_ = os.Mkdir(p, 0o755)
		}
	case 5:
		_ = os.Symlink(pick(g, append([]string{"a", "../b", "/c/d", "nowhere", "loop", "..", "/", strings.Repeat("t", 150), "\xff"}, all...)), p)
	case 6:
		_ = unix.Mkfifo(p, 0o640)
	case 7:
		if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
			_ = unix.Bind(fd, &unix.SockaddrUnix{Name: p})
			unix.Close(fd)
		}
	case 8:
		_ = unix.Mknod(p, pick(g, []uint32{unix.S_IFCHR, unix.S_IFBLK})|0o600, int(unix.Mkdev(uint32(1+g.r.IntN(4000)), uint32(g.r.IntN(1<<20)))))
	case 9, 10:
		if len(all) > 0 {
			_ = os.Link(filepath.Join(root, pick(g, all)), p)
		}
	default:
		// Exclusive: neither through a symlink nor into a fifo.
		if f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
			_, err = f.Write(make([]byte, pick(g, []int{0, 1, 511, 512, 513, 5000, 300000})))
			g.check(errors.Join(err, f.Close()))
		}
	}
	g.dress(p)
}

// dress gives an entry random metadata.
func (g *randomTree) dress(p string) {
	link := false
	if st, err := os.Lstat(p); err != nil {
		return
	} else if st.Mode()&fs.ModeSymlink != 0 {
		link = true
	}
	if g.oneIn(2) {
		_ = os.Lchown(p, pick(g, owners), pick(g, owners))
	}
	if !link && g.oneIn(3) {
		_ = unix.Chmod(p, pick(g, []uint32{0, 0o755, 0o4755, 0o2755, 0o1777, 0o7777, 0o600}))
	}
	for g.oneIn(3) {
		names := []string{"user.a", "user.b", "user.eq", "user.overlay.x", "trusted.t", "security.ima", "trusted.overlay.zz", "trusted.overlay.overlay.q"}
		if g.visible {
			names = names[:3]
		}
		_ = unix.Lsetxattr(p, pick(g, names), pick(g, [][]byte{nil, []byte("v"), []byte("nul\x00nul\n"), make([]byte, 300)}), 0)
	}
	if g.oneIn(8) {
		capv2 := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		capv3 := append(append([]byte{}, capv2...), 0xa0, 0x86, 1, 0) // root id 100000
		capv3[3] = 3
		_ = unix.Lsetxattr(p, "security.capability", pick(g, [][]byte{capv2, capv3}), 0)
	}
	if g.oneIn(2) {
		ts := pick(g, oddTimes)
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

func (g *randomTree) change(p, root string, all, dirs []string) {
	switch g.r.IntN(8) {
	case 0:
		_ = os.Remove(p)
	case 1:
		_ = os.RemoveAll(p)
	case 2: // replaced by something else
		_ = os.RemoveAll(p)
		g.create(p, root, all)
	case 3:
		if to := filepath.Join(root, pick(g, dirs), g.name()); utf8.ValidString(filepath.Base(to)) {
			_ = os.Rename(p, to)
		}
	case 4:
		if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
			_ = os.WriteFile(p, make([]byte, g.r.IntN(2000)), 0o644)
		}
	case 5: // touched and put back: an unchanged directory in the upper one
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			_ = os.WriteFile(filepath.Join(p, "touched"), nil, 0o644)
			_ = os.Remove(filepath.Join(p, "touched"))
			_ = unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		}
	default:
		g.dress(p)
	}
}

// handmade writes a tree as an upper directory might look, without a mount: marks where no kernel would put them.
func (g *randomTree) handmade(work int) string {
	root := g.dir("handmade")
	g.work(root, work)
	all, dirs := g.paths(root)
	for _, d := range dirs[1:] {
		if g.oneIn(3) {
			g.check(unix.Setxattr(filepath.Join(root, d), "trusted.overlay.opaque", pick(g, [][]byte{[]byte("y"), []byte("y"), []byte("x"), []byte("yy")}), 0))
		}
	}
	for range len(all) / 4 {
		p := filepath.Join(root, pick(g, dirs), g.name())
		if err := unix.Mknod(p, unix.S_IFCHR, 0); err != nil && !errors.Is(err, unix.EEXIST) {
			g.t.Fatal(err)
		}
	}
	return root
}
