package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// The oracle of these tests is the extraction of containers/storage as its overlay driver uses it.

// upstreamUnpack extracts a tar as an overlay layer.
func upstreamUnpack(t testing.TB, base string, data []byte) (dir string, err error) {
	t.Helper()
	dir, err = os.MkdirTemp(base, "upstream")
	must(t, err)
	must(t, os.Chmod(dir, 0o555))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir, make([]unix.Timespec, 2), 0))
	err = archive.Unpack(bytes.NewReader(data), dir, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat})
	return dir, err
}

// describeTree lists everything about a tree that a process can see: by path, and hardlinks by the first path of their inode.
func describeTree(t testing.TB, root string, times bool) map[string]string {
	t.Helper()
	out := make(map[string]string)
	first := make(map[uint64]string)
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(path); err != nil {
			return nil // overlayfs lists a whiteout where nothing is below
		}
		out[rel] = describe(t, path, rel, first, times)
		return nil
	}))
	return out
}

func describe(t testing.TB, path, rel string, first map[uint64]string, times bool) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	format := st.Mode & unix.S_IFMT
	if format == unix.S_IFCHR && st.Rdev == 0 {
		return "whiteout"
	}
	s := fmt.Sprintf("mode %o owner %d:%d", st.Mode, st.Uid, st.Gid)
	if times {
		s += fmt.Sprintf(" time %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	if format != unix.S_IFDIR {
		if _, ok := first[st.Ino]; !ok {
			first[st.Ino] = rel
		}
		s += " inode of " + first[st.Ino]
	}
	switch format {
	case unix.S_IFREG:
		b, err := os.ReadFile(path)
		must(t, err)
		if len(b) > 100 {
			b = fmt.Appendf(nil, "%d bytes, %x", len(b), b[:16])
		}
		s += fmt.Sprintf(" content %q", b)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		must(t, err)
		s += fmt.Sprintf(" target %q", target)
	case unix.S_IFBLK, unix.S_IFCHR:
		s += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	for _, x := range readXattrs(t, path) {
		if format == unix.S_IFDIR || !strings.HasPrefix(x, "trusted.overlay.opaque=") { // elsewhere it means nothing
			s += " " + x
		}
	}
	return s
}

func readXattrs(t testing.TB, path string) []string {
	t.Helper()
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	must(t, err)
	var list []string
	for _, name := range strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		name = strings.Replace(name, "trusted.overlay.overlay.", "trusted.overlay.", 1)
		list = append(list, fmt.Sprintf("%s=%q", name, value[:n]))
	}
	slices.Sort(list)
	return list
}

// compareUnpack applies a tar with both and compares the directories. It reports whether upstream took the tar.
func compareUnpack(t testing.TB, c *layers.Catalog, id string, data []byte) bool {
	t.Helper()
	dir, wantErr := upstreamUnpack(t, filepath.Dir(c.Home()), data)
	defer func() { must(t, os.RemoveAll(dir)) }()
	l, err := tryApply(c, id, "", data)
	if wantErr != nil {
		return false // what upstream refuses may be taken; what comes of it is tested by tables
	}
	if err != nil {
		t.Errorf("refused, upstream takes it: %v", err)
		return true
	}
	want, got := describeTree(t, dir, true), describeTree(t, l.TreeDir(), true)
	must(t, l.Walk(context.Background(), func(e *layers.Entry) error {
		if e.Implied { // upstream gives it the time of the extraction
			cut := func(s string) string {
				a, b, _ := strings.Cut(s, " time ")
				_, b, _ = strings.Cut(b, " ")
				return a + " " + b
			}
			want[e.Path], got[e.Path] = cut(want[e.Path]), cut(got[e.Path])
		}
		return nil
	}))
	compareTrees(t, want, got)
	compareCheckout(t, c, l)
	return true
}

// compareCheckout checks a layer out from the repository alone and compares that with its tree.
func compareCheckout(t testing.TB, c *layers.Catalog, l *layers.Layer) {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(c.Home()), "checkout")
	must(t, err)
	defer func() { must(t, os.RemoveAll(dir)) }()
	must(t, layers.Checkout(context.Background(), c.Repo(), l.Commit, dir, layers.CheckoutOptions{}))
	compareTrees(t, describeTree(t, l.TreeDir(), true), describeTree(t, dir, true))
}

func compareTrees(t testing.TB, want, got map[string]string) {
	t.Helper()
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if want[p] != got[p] {
			t.Errorf("%q:\nwant %s\n got %s", p, want[p], got[p])
		}
	}
}

// A tarMaker makes random tars full of collisions.
type tarMaker struct{ *rand.Rand }

func oneOf[T any](m tarMaker, list ...T) T { return list[m.IntN(len(list))] }

func (m tarMaker) name() string {
	parts := make([]string, 1+m.IntN(3))
	for i := range parts {
		parts[i] = oneOf(m, "a", "b", "c", "etc", "a", "b", "\xff")
	}
	name := strings.Join(parts, "/")
	switch m.IntN(12) {
	case 0:
		name = "./" + name
	case 1:
		name = "/" + name
	case 2:
		name = "b/../" + name
	}
	return name
}

func (m tarMaker) whiteout() string {
	dir, base := filepath.Split(m.name())
	if m.IntN(4) == 0 {
		return dir + ".wh..wh..opq"
	}
	return dir + ".wh." + base
}

func (m tarMaker) item() item {
	h := tar.Header{
		Typeflag: tar.TypeReg, Name: m.name(), Mode: m.mode(),
		Uid: oneOf(m, 0, 0, 0, 7, 100000), Gid: oneOf(m, 0, 0, 8), ModTime: m.time(), Format: tar.FormatPAX,
	}
	body := ""
	switch m.IntN(14) {
	case 0, 1, 2:
		h.Typeflag = tar.TypeDir
	case 3, 4:
		h.Typeflag, h.Linkname = tar.TypeSymlink, oneOf(m, m.name(), "../"+m.name(), "/"+m.name(), ".", "..", "x\xfe")
	case 5, 6, 7:
		h.Typeflag, h.Linkname = tar.TypeLink, m.name()
	case 8:
		h.Typeflag, h.Devmajor, h.Devminor = oneOf[byte](m, tar.TypeChar, tar.TypeBlock), int64(m.IntN(3)), int64(m.IntN(3))
	case 9:
		h.Typeflag = tar.TypeFifo
	case 10, 11:
		h.Name = m.whiteout()
	default:
		body = oneOf(m, "", "x", "content", strings.Repeat("large", 300_000))
	}
	if m.IntN(4) == 0 {
		h.PAXRecords = m.xattrs(h.Typeflag)
	}
	return item{Header: h, body: body}
}

func (m tarMaker) mode() int64 {
	return oneOf[int64](m, 0o644, 0o755, 0o4755, 0o2711, 0o600, 0o1777)
}

func (m tarMaker) time() time.Time {
	return oneOf(m, time.Unix(1000, 1), time.Unix(1000, 1), time.Unix(1234567890, 999999999), time.Unix(-5, 500), time.Unix(1<<33, 3), time.Unix(1e10, 0))
}

func (m tarMaker) xattrs(typeflag byte) map[string]string {
	records := make(map[string]string)
	names := []string{"trusted.t", "trusted.empty", "trusted.overlay.metacopy", "security.selinux", "nonsense.x"}
	switch typeflag {
	case tar.TypeReg:
		names = append(names, "security.capability", "user.u", "user.overlay.x")
	case tar.TypeDir:
		names = append(names, "user.u", "system.posix_acl_default", "system.posix_acl_access")
	}
	if typeflag == tar.TypeReg {
		names = append(names, "system.posix_acl_access")
	}
	for range 1 + m.IntN(2) {
		name := oneOf(m, names...)
		value := oneOf(m, "1", "zwei")
		switch name {
		case "trusted.empty":
			value = ""
		case "system.posix_acl_default", "system.posix_acl_access":
			value = m.acl()
		case "security.capability":
			value = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		}
		records["SCHILY.xattr."+name] = value
	}
	return records
}

// acl makes an access control list, of three entries or with a named user and a mask.
func (m tarMaker) acl() string {
	entry := func(tag byte, id uint32) string {
		return string([]byte{tag, 0, byte(m.IntN(8)), 0, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)})
	}
	const none = 1<<32 - 1
	acl := "\x02\x00\x00\x00" + entry(1, none)
	if m.IntN(3) > 0 {
		return acl + entry(2, 7) + entry(4, none) + entry(16, none) + entry(32, none)
	}
	return acl + entry(4, none) + entry(32, none)
}

func TestIngestMatchesUpstream(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	c := openCatalog(t, base+"/home", layers.Options{})
	taken := 0
	for seed := range oracleSeeds(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := tarMaker{rand.New(rand.NewPCG(seed, 1))}
			items := make([]item, 1+m.IntN(14))
			for i := range items {
				items[i] = m.item()
			}
			if m.IntN(3) == 0 { // what is made in it inherits the list
				items = append([]item{dir("a", m.mode()).attr("system.posix_acl_default", m.acl())}, items...)
			}
			if m.IntN(2) == 0 {
				items = append([]item{dir("./", 0o755)}, items...)
			}
			id := fmt.Sprintf("l%d", seed)
			if compareUnpack(t, c, id, makeTar(t, items...)) {
				taken++
			}
			if c.Exists(id) {
				removeAll(t, c, id)
			}
			if t.Failed() {
				for _, i := range items {
					t.Logf("%c %q -> %q mode %o owner %d:%d time %v size %d %q", i.Typeflag, i.Name, i.Linkname, i.Mode, i.Uid, i.Gid, i.ModTime, len(i.body), i.PAXRecords)
				}
			}
		})
	}
	t.Logf("upstream took %d tars", taken)
}
