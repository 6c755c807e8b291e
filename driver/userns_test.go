package driver_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/driver"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// status returns what Status says under a name.
func status(t testing.TB, d *driver.Driver, name string) string {
	t.Helper()
	for _, s := range d.Status() {
		if s[0] == name {
			return s[1]
		}
	}
	t.Errorf("Status has no %q", name)
	return ""
}

// wantOwner compares the owner that a path has.
func wantOwner(t *testing.T, path string, uid, gid int) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	st := fi.Sys().(*syscall.Stat_t)
	if int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, uid, gid)
	}
}

func needShifting(t *testing.T, d *driver.Driver) {
	t.Helper()
	if !d.SupportsShifting(mapped(100000)) {
		t.Skip("the kernel has no idmapped lowers for this filesystem")
	}
	if got := status(t, d, "Supports shifting"); got != "true" {
		t.Errorf("status says %q", got)
	}
}

// TestTwentyMaps has 20 containers of one image with 20 maps at once. They cost no block of data, and what is written through
// each mount has its container's owner on disk.
func TestTwentyMaps(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		d := open(t, dir)
		needShifting(t, d)
		b, size := bigTar(t, 16, 1<<20)
		apply(t, d, "img", "", b)
		before := usedBytes(t, dir)
		for i := range 20 {
			id := fmt.Sprint("c", i)
			host := 100000 * (i + 1)
			must(t, d.CreateReadWrite(id, "img", &driver.CreateOptions{Mappings: mapped(host)}))
			root, err := d.Get(id, driver.MountOptions{Mappings: mapped(host)})
			must(t, err)
			wantOwner(t, filepath.Join(root, "0"), host, host)
			wantOwner(t, root, host, host)
			at, err := os.Open(root) // a path would end at graphroot, which is closed to others
			must(t, err)
			asUser(t, host, func() error {
				fd, err := unix.Openat(int(at.Fd()), "new", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
				return errors.Join(err, unix.Close(fd))
			})
			must(t, at.Close())
			wantOwner(t, filepath.Join(home(dir), "layers", id, "diff", "new"), host, host)
		}
		took := usedBytes(t, dir) - before
		// A container is five directories, a record and a work directory: a megabyte is 1/320 of 20 copies.
		t.Logf("20 containers with 20 maps of an image of %d bytes take %d bytes", size, took)
		if took > 1<<20 {
			t.Errorf("20 containers take %d bytes", took)
		}
		for i := range 20 {
			must(t, d.Put(fmt.Sprint("c", i)))
		}
		if got := status(t, d, "Layers with copied owners"); got != "none" {
			t.Errorf("status says %q", got)
		}
		noMounts(t, dir)
		checkStore(t, dir)
	})
}

// TestSplitMaps mounts through maps of several ranges, and with ids that no range holds.
func TestSplitMaps(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	needShifting(t, d)
	b, _ := ownersTar(t)
	apply(t, d, "img", "", b)
	split := driver.Mappings{
		UIDs: []driver.IDMap{{ContainerID: 0, HostID: 5000, Size: 1}, {ContainerID: 1, HostID: 700000, Size: 999}, {ContainerID: 1000, HostID: 90, Size: 1}},
		GIDs: []driver.IDMap{{ContainerID: 0, HostID: 6000, Size: 500}, {ContainerID: 1000, HostID: 800000, Size: 10}},
	}
	must(t, d.CreateReadWrite("split", "img", &driver.CreateOptions{Mappings: split}))
	root, err := d.Get("split", driver.MountOptions{Mappings: split})
	must(t, err)
	wantOwner(t, root, 5000, 6000)
	wantOwner(t, filepath.Join(root, "root"), 5000, 6000)
	wantOwner(t, filepath.Join(root, "user"), 90, 800000)
	must(t, d.Put("split"))

	// A range that leaves 1000 out: the kernel shows the overflow id, and nobody in the container owns the file.
	hole := driver.Mappings{
		UIDs: []driver.IDMap{{ContainerID: 0, HostID: 5000, Size: 10}}, GIDs: []driver.IDMap{{ContainerID: 0, HostID: 5000, Size: 10}},
	}
	must(t, d.CreateReadWrite("hole", "img", &driver.CreateOptions{Mappings: hole}))
	root, err = d.Get("hole", driver.MountOptions{Mappings: hole})
	must(t, err)
	wantOwner(t, filepath.Join(root, "user"), 65534, 65534)
	must(t, d.Put("hole"))

	wrong := driver.Mappings{
		UIDs: []driver.IDMap{{ContainerID: 0, HostID: 1, Size: 10}, {ContainerID: 5, HostID: 100, Size: 10}}, GIDs: hole.GIDs,
	}
	if d.SupportsShifting(wrong) {
		t.Error("a map whose ranges overlap can be shifted")
	}
	noMounts(t, dir)
	checkStore(t, dir)
}

// TestMappedCost has UpdateLayerIDMap where mounts cannot map: objects stay as they are, Status says what it took, and a later driver
// that could map does not map a second time.
func TestMappedCost(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		t.Setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
		d := open(t, dir)
		if d.SupportsShifting(mapped(100000)) {
			t.Error("shifting is supported although it was switched off")
		}
		b, size := bigTar(t, 16, 1<<20)
		apply(t, d, "img", "", b)
		before := usedBytes(t, dir)
		must(t, d.CreateFromTemplate("mapped", "img", "", nil, false))
		must(t, d.UpdateLayerIDMap("mapped", driver.Mappings{}, mapped(100000), ""))
		took := usedBytes(t, dir) - before
		says := status(t, d, "Layers with copied owners")
		t.Logf("a mapped layer of %d bytes takes %d: %s", size, took, says)
		reflink := strings.Contains(says, "shared by reflink")
		if want := status(t, d, "Reflink") == "true"; reflink != want || !strings.HasPrefix(says, fmt.Sprintf("1 layers, 17 entries, %d bytes", size)) {
			t.Errorf("status says %q", says)
		}
		if reflink && took > size/8 {
			t.Errorf("with reflinks a mapped layer of %d bytes takes %d", size, took)
		}
		must(t, os.Unsetenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP"))
		must(t, d.CreateReadWrite("ctr", "mapped", &driver.CreateOptions{Mappings: mapped(100000)}))
		root, err := d.Get("ctr", driver.MountOptions{Mappings: mapped(100000)})
		must(t, err)
		wantOwner(t, filepath.Join(root, "0"), 100000, 100000)
		must(t, d.Put("ctr"))
		must(t, d.Remove("ctr"))
		must(t, d.Remove("mapped"))
		if got := status(t, d, "Layers with copied owners"); got != "none" {
			t.Errorf("status says %q", got)
		}
		noMounts(t, dir)
		checkStore(t, dir)
	})
}

// TestVolatileAgain mounts a layer twice with the volatile option, which the kernel refuses for the mark of the first mount.
func TestVolatileAgain(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	d := open(t, dir)
	b, _ := ownersTar(t)
	apply(t, d, "img", "", b)
	must(t, d.CreateReadWrite("ctr", "img", nil))
	for _, volatile := range []bool{true, true, false, true} {
		_, err := d.Get("ctr", driver.MountOptions{Volatile: volatile})
		must(t, err)
		must(t, d.Put("ctr"))
	}
	checkStore(t, dir)
}

// noMounts fails if anything of the driver is mounted below dir.
func noMounts(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+dir+"/") {
			t.Errorf("left mounted: %s", line)
		}
	}
}

// usedBytes returns what is taken of a filesystem, all written.
func usedBytes(t testing.TB, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	// xfs frees the blocks of what was removed in the background: what counts is what it comes to.
	var used, same int64
	for tries := 0; same < 4 && tries < 100; tries++ {
		must(t, unix.Syncfs(int(f.Fd())))
		var st unix.Statfs_t
		must(t, unix.Fstatfs(int(f.Fd()), &st))
		if now := int64(st.Blocks-st.Bfree) * st.Bsize; now == used {
			same++
		} else {
			used, same = now, 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	return used
}

// TestReachable walks a store as another user: nothing below graphroot's home can be opened, so a setuid or capability-bearing
// object is out of reach however the graphroot above is.
func TestReachable(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	must(t, os.Chmod(dir, 0o755))
	d := open(t, dir)
	b, _ := ownersTar(t)
	apply(t, d, "img", "", b)
	must(t, d.CreateReadWrite("ctr", "img", nil))
	must(t, d.Create("loose", "img", nil))
	_, err := d.Get("ctr", driver.MountOptions{})
	must(t, err)
	var paths []string // everything there is, as root sees it
	must(t, filepath.WalkDir(home(dir), func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	if len(paths) < 30 {
		t.Fatalf("the store has %d paths", len(paths))
	}
	for _, above := range []string{filepath.Dir(dir), dir, filepath.Dir(home(dir))} {
		must(t, os.Chmod(above, 0o755))
	}
	asUser(t, 1000, func() error {
		for _, path := range paths {
			var st unix.Stat_t
			if path == home(dir) {
				if err := unix.Lstat(path, &st); err != nil {
					t.Errorf("what is above the store is closed, and this test of no use: %v", err)
				}
				if _, err := os.ReadDir(path); err == nil {
					t.Errorf("%s can be listed", path)
				}
				continue
			}
			if err := unix.Lstat(path, &st); err != unix.EACCES {
				t.Errorf("%s can be reached: %v", path, err)
			}
		}
		return nil
	})
	must(t, d.Put("ctr"))
	// Each of these directories is closed by itself as well, should one above be opened.
	for _, dir := range []string{home(dir), filepath.Join(home(dir), "layers"), filepath.Join(home(dir), "repo"), filepath.Join(home(dir), "layers", "img")} {
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi.Mode(), err)
		}
	}
}
