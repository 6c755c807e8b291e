package store_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// TestTimes stores times that not every filesystem can keep. Whatever the inode ends up with is what names the lane, and
// the same file is known again.
func TestTimes(t *testing.T) {
	testfs.Each(t, func(t *testing.T, home string) {
		r := storetest.At(t, home+"/repo", store.Options{})
		times := []store.Time{
			{}, {Sec: 1, Nsec: 999_999_999}, {Sec: 1<<31 - 1, Nsec: 5}, {Sec: 1 << 31}, {Sec: 1<<32 + 5, Nsec: 7}, {Sec: 1<<34 - 1},
			{Sec: 1 << 40}, {Sec: 1<<63 - 1}, {Sec: -1, Nsec: 1}, {Sec: -1 << 31}, {Sec: -1<<31 - 1, Nsec: 3}, {Sec: -1 << 62},
		}
		for _, id := range []string{"one", "two"} {
			l := stage(t, r, store.StageOptions{})
			for i, at := range times {
				f := regular(0o644, 0)
				f.MTime = at
				name := string(rune('a' + i))
				p := l.put(name, f, "body "+name)
				var st syscall.Stat_t
				if err := syscall.Lstat(l.stage.Path()+"/tree/"+name, &st); err != nil {
					t.Fatal(err)
				}
				if p.MTime != (store.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}) {
					t.Errorf("%v: placed says %v, the inode %v", at, p.MTime, st.Mtim)
				}
				if at.Sec >= 0 && at.Sec < 1<<31 && p.MTime != at {
					t.Errorf("%v became %v", at, p.MTime)
				}
				if id == "two" && p.Mode != store.Linked {
					t.Errorf("%v: not known again: %+v", at, p)
				}
			}
			l.publish("layer/"+id, home+"/"+id)
		}
	})
}

// TestSparse writes zeros as holes, in memory and streamed, and keeps the content.
func TestSparse(t *testing.T) {
	testfs.Each(t, func(t *testing.T, home string) {
		r := storetest.At(t, home+"/repo", store.Options{})
		rnd := rand.New(rand.NewPCG(1, 2))
		noise := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(1 + rnd.Uint32()%255)
			}
			return b
		}
		bodies := map[string][]byte{
			"a-all":    make([]byte, 5<<20),
			"b-end":    append(noise(5000), make([]byte, 1<<20)...),
			"c-middle": bytes.Join([][]byte{noise(70_000), make([]byte, 3<<20), noise(100)}, nil),
			"d-short":  bytes.Join([][]byte{noise(4096), make([]byte, 20_000), noise(4096)}, nil),
			"e-odd":    bytes.Join([][]byte{noise(1<<20 - 1), make([]byte, 1<<20+3)}, nil),
		}
		l := stage(t, r, store.StageOptions{})
		for _, name := range []string{"a-all", "b-end", "c-middle", "d-short", "e-odd"} {
			body := bodies[name]
			l.stream(name+"1", regular(0o644, 1000), body)
			l.put(name+"2", regular(0o644, 1001), string(body))
		}
		l.publish("layer/one", home+"/one")
		if err := r.Sync(); err != nil {
			t.Fatal(err)
		}
		for name, body := range bodies {
			data := len(body) - bytes.Count(body, make([]byte, 4096))*4096
			for _, n := range []string{name + "1", name + "2"} {
				got, err := os.ReadFile(home + "/one/tree/" + n)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s: wrong content, %v", n, err)
				}
				var st syscall.Stat_t
				if err := syscall.Lstat(home+"/one/tree/"+n, &st); err != nil {
					t.Fatal(err)
				}
				if limit := int64(data + 40_000); st.Blocks*512 > limit {
					t.Errorf("%s: %d bytes of blocks for %d of data", n, st.Blocks*512, data)
				}
			}
		}
	})
}

// used returns the filesystem's used bytes, once xfs has freed in the background what was deleted.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	last := usedNow(t, dir)
	for same := 0; same < 5; same++ {
		time.Sleep(50 * time.Millisecond)
		if now := usedNow(t, dir); now != last {
			last, same = now, 0
		}
	}
	return last
}

func usedNow(t *testing.T, dir string) int64 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// TestReflinks wants lanes, private copies and files that one layer has twice to cost no data where the filesystem can
// share it.
func TestReflinks(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			home := testfs.Mount(t, kind)
			r := storetest.At(t, home+"/repo", store.Options{})
			if f, err := r.Features(); err != nil || !f.Reflink {
				t.Fatalf("features: %+v, %v", f, err)
			}
			body := make([]byte, 8<<20)
			for i := range body {
				body[i] = byte(i*7 + i>>11 + 1)
			}
			small := string(body[:100_000])
			if err := stage(t, r, store.StageOptions{}).stage.Close(); err != nil { // the first one makes the reserve
				t.Fatal(err)
			}
			before := used(t, home)
			private := regular(0o644, 1000)
			private.Private = true
			l := stage(t, r, store.StageOptions{})
			l.stream("a", regular(0o644, 1000), body)
			l.stream("b", regular(0o644, 1000), body)
			l.put("c", regular(0o644, 1000), small)
			l.put("d", regular(0o644, 1000), small)
			l.put("e", private, small)
			l.publish("layer/one", home+"/one")
			first := used(t, home)
			if spent := first - before; spent > 9_500_000 {
				t.Errorf("one layer takes %d bytes", spent)
			}
			l = stage(t, r, store.StageOptions{})
			l.stream("a", regular(0o644, 2000), body)
			l.put("b", regular(0o644, 2000), small)
			l.stream("c", private, body)
			p, err := l.stage.PutObject(int(l.tree.Fd()), "d", regular(0o644, 3000), l.files[0].p.Checksum)
			if err != nil {
				t.Fatal(err)
			}
			l.add("d", p)
			l.publish("layer/two", home+"/two")
			if spent := used(t, home) - first; spent > 1_000_000 {
				t.Errorf("lanes take %d bytes", spent)
			}
			for _, name := range []string{"a", "c", "d"} {
				if b, err := os.ReadFile(home + "/two/tree/" + name); err != nil || !bytes.Equal(b, body) {
					t.Errorf("%s: wrong content, %v", name, err)
				}
			}
		})
	}
}

// TestSettle looks at what the kernel makes of access control lists and capabilities.
func TestSettle(t *testing.T) {
	testfs.Each(t, func(t *testing.T, home string) {
		aclNames := func(kinds ...string) (names []string) {
			for _, k := range kinds {
				names = append(names, "system.posix_acl_"+k)
			}
			if filepath.Base(home) == "xfs" { // which shows them twice
				for _, k := range kinds {
					names = append(names, map[string]string{"access": "trusted.SGI_ACL_FILE", "default": "trusted.SGI_ACL_DEFAULT"}[k])
				}
				slices.Sort(names)
			}
			return names
		}
		r := storetest.At(t, home+"/repo", store.Options{})
		l := stage(t, r, store.StageOptions{})
		minimal := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 0x20, 0, 1, 0, 255, 255, 255, 255}
		user := object.Xattr{Name: "user.x", Value: []byte("y")}
		access := func(b []byte) object.Xattr { return object.Xattr{Name: "system.posix_acl_access", Value: b} }
		for _, c := range []struct {
			name   string
			mode   uint32
			xattrs []object.Xattr
			want   uint32
			names  []string
		}{
			{"nothing to do", unix.S_IFREG | 0o644, []object.Xattr{user}, unix.S_IFREG | 0o644, []string{"user.x"}},
			{"as good as a mode", unix.S_IFREG | 0o777, []object.Xattr{access(minimal), user}, unix.S_IFREG | 0o651, []string{"user.x"}},
			{"a real list", unix.S_IFREG | 0o4777, []object.Xattr{access(aclOf(6, 4, 5, 0))}, unix.S_IFREG | 0o4650, aclNames("access")},
			{"a directory", unix.S_IFDIR | 0o1777, []object.Xattr{access(aclOf(7, 4, 5, 0)), {Name: "system.posix_acl_default", Value: aclOf(7, 7, 7, 7)}},
				unix.S_IFDIR | 0o1750, aclNames("access", "default")},
		} {
			for range 2 {
				mode, xattrs, err := l.stage.Settle(c.mode, c.xattrs)
				if err != nil || mode != c.want {
					t.Errorf("%s: mode %o, want %o, %v", c.name, mode, c.want, err)
				}
				var names []string
				for _, x := range xattrs {
					names = append(names, x.Name)
				}
				if !slices.Equal(names, c.names) {
					t.Errorf("%s: attributes %q, want %q", c.name, names, c.names)
				}
			}
		}
		f := regular(0o777, 1000)
		f.Header.Xattrs = []object.Xattr{access(aclOf(6, 4, 5, 0)), user}
		p := l.put("a", f, "listed")
		if p.Header == nil || p.Header.Mode != unix.S_IFREG|0o650 {
			t.Errorf("header %+v", p.Header)
		}
		l.publish("layer/one", home+"/one")
		l = stage(t, r, store.StageOptions{})
		if p := l.put("a", f, "listed"); p.Mode != store.Linked {
			t.Errorf("not known again: %+v", p)
		}
	})
}

// TestLabel wants the store label on every inode, and none that an image brings.
func TestLabel(t *testing.T) {
	home := t.TempDir()
	const label = "system_u:object_r:container_ro_file_t:s0"
	r := storetest.At(t, home+"/repo", store.Options{Label: label})
	l := stage(t, r, store.StageOptions{})
	f := regular(0o644, 1000)
	f.Header.Xattrs = []object.Xattr{{Name: "security.selinux", Value: []byte("image_t\x00")}}
	l.put("a", f, "hello")
	l.put("b", regular(0o644, 1000), "hello")
	l.put("e", regular(0o644, 1000), "")
	l.put("l", store.File{Header: object.FileHeader{Mode: unix.S_IFLNK | 0o777, Target: "x"}}, "")
	if l.files[0].p.Checksum != l.files[1].p.Checksum {
		t.Error("the label of the image is in the object")
	}
	commit, _ := l.publish("layer/one", home+"/one")
	for _, name := range []string{"a", "b", "e", "l"} {
		b := make([]byte, 100)
		n, err := unix.Lgetxattr(home+"/one/tree/"+name, "security.selinux", b)
		if err != nil || string(b[:n]) != label+"\x00" {
			t.Errorf("%s: label %q, %v", name, b[:max(n, 0)], err)
		}
	}
	c, err := r.ReadCommit(commit)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := r.ReadDirMeta(c.Meta); err != nil || len(m.Xattrs) != 1 {
		t.Errorf("dirmeta %+v, %v", m, err)
	}
	if _, err := store.Init(home+"/repo", store.Options{}); err == nil {
		t.Error("opened with another label")
	}
	ostree(t, "fsck", "--repo", r.Path())
}
