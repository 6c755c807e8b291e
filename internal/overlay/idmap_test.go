package overlay_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"golang.org/x/sys/unix"
)

// maps returns 20 different maps: contiguous ones, split ones, and ones that put root elsewhere.
func maps() []*overlay.IDMap {
	var all []*overlay.IDMap
	for i := range uint32(20) {
		base := 100000 + i*65536
		m := &overlay.IDMap{
			UIDs: []overlay.Range{{Container: 0, Host: base, Size: 65536}},
			GIDs: []overlay.Range{{Container: 0, Host: base + 1, Size: 65536}},
		}
		switch i % 4 {
		case 1: // as keep-id: one id in the middle is the user's own
			m.UIDs = []overlay.Range{{0, base + 1, 1000}, {1000, 7000 + i, 1}, {1001, base + 1001, 64535}}
		case 2: // nested: a range of a range, gaps between
			m.GIDs = []overlay.Range{{0, base + 5, 10}, {1000, base + 100, 2000}}
		case 3:
			m.UIDs = []overlay.Range{{1000, base, 1}, {0, base + 1, 1000}}
		}
		all = append(all, m)
	}
	return all
}

// seen returns the id that ranges show for id.
func seen(ranges []overlay.Range, id uint32) uint32 {
	for _, r := range ranges {
		if id >= r.Container && id-r.Container < r.Size {
			return r.Host + id - r.Container
		}
	}
	return 65534
}

func owners(t testing.TB, path string) (uint32, uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid
}

var onDisk = []uint32{0, 1, 999, 1000, 1001, 40000}

// mapped prepares a mount whose lowers hold a file and a directory of each owner.
func mapped(t *testing.T, base string) *overlay.Mount {
	t.Helper()
	m := layers(t, base, 2)
	for _, id := range onDisk {
		file, dir := fmt.Sprintf("%s/f%d", m.Lowers[0], id), fmt.Sprintf("%s/d%d", m.Lowers[1], id)
		write(t, file, "x")
		dirs(t, m.Lowers[1], fmt.Sprintf("d%d", id))
		if err := errors.Join(os.Lchown(file, int(id), int(id)), os.Lchown(dir, int(id), int(id))); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestIDMaps(t *testing.T) {
	needRoot(t)
	testfs.Each(t, func(t *testing.T, base string) {
		m := mapped(t, base)
		for i, ids := range maps() {
			// A container of its own over the same lowers, all mounted at the same time.
			d := dirs(t, fmt.Sprintf("%s/c%d", base, i), "upper", "work", "merged")
			c := *m
			c.Upper, c.Work, c.Target, c.IDMap = d[0], d[1], d[2], ids
			if err := c.Do(); err != nil {
				t.Fatalf("map %d: %v", i, err)
			}
			t.Cleanup(func() { overlay.Unmount(c.Target) })
			checkOwners(t, &c)
		}
		if lines := mountLines(t, base+"/"); len(lines) != 20 {
			t.Errorf("%d mounts, want 20:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		for i := range maps() {
			if err := overlay.Unmount(fmt.Sprintf("%s/c%d/merged", base, i)); err != nil {
				t.Error(err)
			}
		}
		for _, line := range mountLines(t, base+"/") {
			t.Errorf("left behind: %s", line)
		}
		for _, id := range onDisk {
			if uid, gid := owners(t, fmt.Sprintf("%s/f%d", m.Lowers[0], id)); uid != id || gid != id {
				t.Errorf("owner of a lower's file is %d:%d, was %d", uid, gid, id)
			}
		}
	})
}

func checkOwners(t *testing.T, m *overlay.Mount) {
	t.Helper()
	for _, id := range onDisk {
		for _, name := range []string{fmt.Sprintf("f%d", id), fmt.Sprintf("d%d", id)} {
			uid, gid := owners(t, filepath.Join(m.Target, name))
			if u, g := seen(m.IDMap.UIDs, id), seen(m.IDMap.GIDs, id); uid != u || gid != g {
				t.Errorf("%s is owned by %d:%d, want %d:%d", name, uid, gid, u, g)
			}
		}
	}
	// A file that root of the container makes, and a copy up.
	if err := os.Chmod(m.Target, 0o777); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(m.Target) // the way there is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, name := range []string{"new", "f0"} {
		err := asOwner(seen(m.IDMap.UIDs, 0), seen(m.IDMap.GIDs, 0), func() error {
			fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			unix.Close(fd)
			return err
		})
		if err != nil {
			t.Fatalf("open %s: %v", name, err)
		}
	}
	for _, path := range []string{m.Upper + "/new", m.Upper + "/f0", m.Target + "/f0"} {
		uid, gid := owners(t, path)
		if u, g := seen(m.IDMap.UIDs, 0), seen(m.IDMap.GIDs, 0); uid != u || gid != g {
			t.Errorf("%s is owned by %d:%d, want %d:%d", path, uid, gid, u, g)
		}
	}
}

// asOwner runs f with other ids for the filesystem.
func asOwner(uid, gid uint32, f func() error) error {
	done := make(chan error)
	go func() {
		// The thread ends with this goroutine: it is never unlocked.
		lockThread()
		unix.SetfsgidRetGid(int(gid))
		unix.SetfsuidRetUid(int(uid))
		done <- f()
	}()
	return <-done
}

func TestIDMapWays(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := mapped(t, t.TempDir())
		m.IDMap = maps()[1]
		mount(t, m, w)
		checkOwners(t, m)
	})
}

// A volatile mount that one way does not bring about leaves a mark, which the next way must not stumble over.
func TestIDMapVolatile(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := mapped(t, t.TempDir())
		m.IDMap, m.Volatile = maps()[1], true
		mount(t, m, w)
		checkOwners(t, m)
	})
}

// From Linux 6.15 on no mount namespace is made for an id map.
func TestIDMapDetached(t *testing.T) {
	needRoot(t)
	m := mapped(t, t.TempDir())
	m.IDMap = maps()[1]
	err := m.DoOnly(overlay.Ways["fd"])
	if err == nil {
		t.Cleanup(func() { overlay.Unmount(m.Target) })
		checkOwners(t, m)
		return
	}
	var name unix.Utsname
	var major, minor int
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); n == 2 && (major < 6 || major == 6 && minor < 15) {
		t.Skipf("Linux %d.%d has no overlay over detached mounts", major, minor)
	}
	t.Error(err)
}

// The nearest lower of a read-only mount is an upper directory, whose owners are right as they are.
func TestIDMapReadOnly(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := mapped(t, t.TempDir())
		m.IDMap, m.ReadOnly = maps()[0], true
		write(t, m.Upper+"/own", "")
		mount(t, m, w)
		if uid, gid := owners(t, m.Target+"/own"); uid != 0 || gid != 0 {
			t.Errorf("owner %d:%d of the upper's file, want 0:0", uid, gid)
		}
		if uid, gid := owners(t, m.Target+"/f1"); uid != 100001 || gid != 100002 {
			t.Errorf("owner %d:%d of the lower's file, want 100001:100002", uid, gid)
		}
	})
}

func TestIDMapValidate(t *testing.T) {
	one := []overlay.Range{{Size: 1}}
	tests := map[string]struct {
		ranges []overlay.Range
		want   string
	}{
		"good":              {[]overlay.Range{{0, 100, 10}, {10, 5, 5}}, ""},
		"none":              {nil, "no ranges"},
		"empty":             {[]overlay.Range{{}}, "range 0:0:0 is empty"},
		"overlap inside":    {[]overlay.Range{{0, 100, 10}, {9, 200, 5}}, "range 9:200:5 overlaps another"},
		"overlap outside":   {[]overlay.Range{{0, 100, 10}, {20, 109, 5}}, "range 20:109:5 overlaps another"},
		"all ids":           {[]overlay.Range{{0, 0, 1<<32 - 1}}, ""},
		"beyond the last":   {[]overlay.Range{{1, 0, 1<<32 - 1}}, "beyond the last id"},
		"host past the end": {[]overlay.Range{{0, 1<<32 - 2, 2}}, "beyond the last id"},
		"many":              {make([]overlay.Range, 341), "341 ranges"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, m := range map[string]overlay.IDMap{"uid": {UIDs: tt.ranges, GIDs: one}, "gid": {UIDs: one, GIDs: tt.ranges}} {
				err := m.Validate()
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), kind)) {
					t.Errorf("%s: %v, want %q", kind, err, tt.want)
				}
			}
		})
	}
}

// 340 ranges is what the kernel takes, if the text fits in a page.
func TestIDMapManyRanges(t *testing.T) {
	needRoot(t)
	var ids overlay.IDMap
	for i := range uint32(300) {
		ids.UIDs = append(ids.UIDs, overlay.Range{Container: i, Host: 9000 - i*2, Size: 1})
	}
	ids.GIDs = ids.UIDs
	m := mapped(t, t.TempDir())
	m.IDMap = &ids
	mount(t, m, overlay.Way{})
	if uid, _ := owners(t, m.Target+"/f1"); uid != 8998 {
		t.Errorf("owner %d, want 8998", uid)
	}
}

// The lowers' common directory does not show a lower that is mounted there, or that a link leads to.
func TestIDMapAcrossMounts(t *testing.T) {
	eachWay(t, func(t *testing.T, w overlay.Way) {
		m := layers(t, t.TempDir(), 3)
		m.IDMap = maps()[0]
		other := dirs(t, t.TempDir(), "mounted", "elsewhere")
		mounted, elsewhere := other[0], other[1]
		write(t, mounted+"/top", "mounted")
		if err := unix.Mount(mounted, m.Lowers[0], "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(m.Lowers[0], unix.MNT_DETACH)
		write(t, elsewhere+"/far", "")
		if err := errors.Join(os.RemoveAll(m.Lowers[1]), os.Symlink(elsewhere, m.Lowers[1])); err != nil {
			t.Fatal(err)
		}
		mount(t, m, w)
		wantFile(t, m.Target+"/top", "mounted")
		for _, name := range []string{"top", "far", "2"} {
			if uid, gid := owners(t, filepath.Join(m.Target, name)); uid != 100000 || gid != 100001 {
				t.Errorf("%s is owned by %d:%d, want 100000:100001", name, uid, gid)
			}
		}
	})
}

// A filesystem that cannot be idmapped is named.
func TestIDMapUnsupported(t *testing.T) {
	needRoot(t)
	inner := layers(t, t.TempDir(), 1)
	mount(t, inner, overlay.Way{}) // an overlay cannot be idmapped
	m := layers(t, t.TempDir(), 1)
	m.Lowers, m.IDMap = []string{inner.Target}, maps()[0]
	err := m.Do()
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "without idmapped mounts") || !strings.Contains(err.Error(), inner.Target) {
		overlay.Unmount(m.Target)
		t.Error(err)
	}
}

// No process is left, and none is seen by whoever waits for children.
func TestNamespaceLeavesNoChild(t *testing.T) {
	needRoot(t)
	for i := range 50 {
		fd, err := overlay.NewUserNamespace(&overlay.IDMap{UIDs: []overlay.Range{{0, uint32(i), 1}}, GIDs: []overlay.Range{{0, uint32(i), 1}}})
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("child %d left, %v", pid, err)
	}
}
