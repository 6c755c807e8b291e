package pins_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/pins"
)

// used is what df says, in bytes, when all is on disk.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var st unix.Statfs_t
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// reads is how many bytes this process has read.
func reads(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "rchar: "); ok {
			for _, c := range strings.TrimSpace(rest) {
				n = n*10 + int64(c-'0')
			}
		}
	}
	return n
}

// A pin takes directories and records of the disk, and reads each file once at most; to replace its image by the next version, of which a
// small layer is new, costs that layer; ending it gives everything back.
func TestPinAndReplaceCost(t *testing.T) {
	w := newWorld(t)
	base, v1, v2 := layer(t, "base", 1500), layer(t, "v1", 40), layer(t, "v2", 40)
	w.put(one, []string{"localhost/os:1"}, base, v1)
	w.put(two, []string{"localhost/os:2"}, base, v2)
	w.inPins(func(*pins.Store) {})
	var cost, next int64
	w.inPins(func(s *pins.Store) {
		before, read := used(t, w.dir), reads(t)
		pin(t, s, pins.Request{Image: one, Name: "os"})
		cost, read = used(t, w.dir)-before, reads(t)-read
		t.Logf("pinning %d KiB took %d KiB of the disk and read %d KiB", (len(base)+len(v1))>>10, cost>>10, read>>10)
		if limit := int64(len(base)+len(v1)) / 12; cost > limit {
			t.Errorf("a pin took %d bytes of the disk, more than %d", cost, limit)
		}
		if limit := int64(len(base)+len(v1)) * 5 / 4; read > limit {
			t.Errorf("a pin read %d bytes, more than %d", read, limit)
		}
		before = used(t, w.dir)
		p := pin(t, s, pins.Request{Image: two, Replace: "os"})
		next = used(t, w.dir) - before
		t.Logf("replacing its image took %d KiB", next>>10)
		if p.Replaced == nil || len(p.Replaced.Layers) != 1 || next > cost/4 {
			t.Errorf("replacing took %d bytes, and the whole pin %d; %+v", next, cost, p.Replaced)
		}
		clean(t, s)
		if _, err := s.Unpin("os", false); err != nil {
			t.Fatal(err)
		}
		// An empty repository keeps its directories, objects/00 to objects/ff among them, and the megabyte that it has in reserve.
		own := int64(0)
		err := filepath.WalkDir(w.pinned(), func(_ string, d os.DirEntry, err error) error {
			switch {
			case err == nil && d.IsDir():
				own += 4096
			case err == nil && d.Name() == "reserve":
				own += 1 << 20
			}
			return err
		})
		if left := used(t, w.dir) - before + cost; err != nil || left > own+256<<10 {
			t.Errorf("after the pin ended %d bytes stayed in use, and %d are the repository's own; %v", left, own, err)
		}
	})
	o := w.options()
	o.Unread = true
	s, err := pins.Open(o, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	read := reads(t)
	pin(t, s, pins.Request{Image: one, Name: "os"})
	if read = reads(t) - read; read > int64(len(base))/10 {
		t.Errorf("an unread pin read %d bytes of %d", read, len(base))
	}
	clean(t, s)
}

// On another mount of a filesystem that can, a pin is made of reflinks, and pin says so before it starts.
func TestPinByReflink(t *testing.T) {
	w := worldIn(t, testfs.Mount(t, "xfs"))
	base := layer(t, "base", 1500)
	w.put(one, []string{"localhost/os:1"}, base)
	if err := os.Mkdir(w.pinned(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(w.pinned(), w.pinned(), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(w.pinned(), unix.MNT_DETACH)
	w.inPins(func(s *pins.Store) {
		before := used(t, w.dir)
		p := pin(t, s, pins.Request{Image: one, Name: "os"})
		cost := used(t, w.dir) - before
		t.Logf("it took %d KiB for %d KiB", cost>>10, len(base)>>10)
		if p.Sharing != pins.ByClone || cost > int64(len(base))/3 || len(w.said) == 0 || !strings.Contains(w.said[0], "is reflinked") {
			t.Errorf("pin gives %+v, costs %d bytes, said %q", p, cost, w.said)
		}
		clean(t, s)
	})
}

// TestReplaceHelper is a program that replaces a pin.
func TestReplaceHelper(t *testing.T) {
	args := strings.Split(os.Getenv("PINS_REPLACE"), "\n")
	if len(args) < 3 {
		t.Skip("it is run by another test, in a process of its own")
	}
	w := worldIn(t, args[0])
	w.inPins(func(s *pins.Store) {
		if _, err := s.Pin(context.Background(), pins.Request{Image: args[1], Replace: "os"}); err != nil {
			t.Fatal(err)
		}
	})
}

// Replacing that is killed at any moment leaves the old pin or the new one, whole, and can be done again.
func TestReplaceKilled(t *testing.T) {
	w := newWorld(t)
	base := layer(t, "base", 60)
	w.put(one, []string{"localhost/os:1"}, base, layer(t, "v1", 150))
	w.put(two, []string{"localhost/os:2"}, base, layer(t, "v2", 150))
	w.inPins(func(s *pins.Store) { pin(t, s, pins.Request{Image: one, Name: "os"}) })
	at := map[string]int{}
	killed, ended, next := 0, 0, two
	for delay := 10 * time.Millisecond; ended < 3 && delay < time.Minute; delay = delay * 5 / 4 {
		c := exec.Command(os.Args[0], "-test.run=^TestReplaceHelper$")
		c.Env = append(os.Environ(), "PINS_REPLACE="+strings.Join([]string{w.dir, next, ""}, "\n"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(delay, func() { c.Process.Kill() })
		whole := c.Wait() == nil
		timer.Stop()
		if !whole {
			killed++
		} else {
			ended++
		}
		w.inPins(func(s *pins.Store) {
			list, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				if p.Missing {
					t.Fatalf("after %v: %+v", delay, list)
				}
				if p.Name == "os" {
					at[p.Image]++
					if whole && p.Image != next {
						t.Errorf("after all of it the pin is %+v", p)
					}
					next = map[string]string{one: two, two: one}[p.Image]
				}
			}
			clean(t, s)
			if _, err := s.Collect(false); err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				if p.Unnamed { // the image that the table did not get, or has no more
					if _, err := s.Unpin(p.Image, false); err != nil {
						t.Fatal(err)
					}
				}
			}
			left, err := os.ReadDir(filepath.Join(w.pinned(), "ostree", "layers"))
			if err != nil || len(left) != 2 {
				t.Errorf("after %v the pinned store has the layers %v, %v", delay, left, err)
			}
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d were killed; the old or the new image was pinned %d and %d times", killed, at[one], at[two])
	if killed == 0 || at[one] == 0 || at[two] == 0 {
		t.Error("not every case was seen")
	}
	w.inMain(func(s storage.Store) {
		report, err := s.Check(storage.CheckMost())
		if err != nil || len(report.Layers)+len(report.Images) != 0 {
			t.Errorf("check of the main store finds %+v, %v", report, err)
		}
	})
}
