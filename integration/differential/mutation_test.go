package differential_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// sample is a chain in which every lane rule has something to hold.
func sample() differential.Chain {
	at := time.Unix(1700000000, 5)
	file := func(name, body string) differential.Entry {
		return differential.Entry{Name: name, Type: tar.TypeReg, Mode: 0o644, Body: []byte(body), MTime: at}
	}
	dir := func(name string) differential.Entry {
		return differential.Entry{Name: name, Type: tar.TypeDir, Mode: 0o755, MTime: at}
	}
	big := strings.Repeat("equal ", 2000)
	suid, attrs := file("usr/suid", big), file("usr/attrs", big)
	suid.Mode = 0o4755
	attrs.Xattrs = map[string]string{"user.a": "x"}
	return differential.Chain{
		{
			dir("./"), dir("etc/"), dir("usr/"), dir("var/"), dir("var/lib/"),
			file("etc/job", "job"), file("usr/one", big), file("usr/two", big), file("usr/empty1", ""), file("usr/empty2", ""), suid, attrs,
			file("usr/linked1", big),
			{Name: "usr/linked2", Type: tar.TypeLink, Link: "usr/linked1", Mode: 0o644, MTime: at},
			{Name: "usr/symlink1", Type: tar.TypeSymlink, Link: "target", Mode: 0o777, MTime: at},
			{Name: "usr/symlink2", Type: tar.TypeSymlink, Link: "target", Mode: 0o777, MTime: at},
			{Name: "usr/device", Type: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666, MTime: at},
		},
		{dir("usr/"), file("usr/three", big), file("var/lib/four", big)},
	}
}

// mutations break one promise each, in the files of our driver, as a driver
// with that fault would leave them.
var mutations = []struct {
	name string
	want string // what the harness must find
	do   func(lower, upper string) error
}{
	{"equal files of a layer share an inode", "names of the inode", func(l, _ string) error { return relink(l+"/usr/one", l+"/usr/two") }},
	{"equal files of two layers share an inode", "names of the inode", func(l, u string) error { return relink(l+"/usr/one", u+"/usr/three") }},
	{"a file of a higher layer and a link group share", "names of the inode", func(l, u string) error { return relink(l+"/usr/linked1", u+"/var/lib/four") }},
	{"empty files share an inode", "names of the inode", func(l, _ string) error { return relink(l+"/usr/empty1", l+"/usr/empty2") }},
	{"equal symlinks share an inode", "names of the inode", func(l, _ string) error { return relink(l+"/usr/symlink1", l+"/usr/symlink2") }},
	{"a hardlink is split", "names of the inode", func(l, _ string) error { return split(l + "/usr/linked2") }},
	{"a file of etc is linked from outside", "link count", func(l, _ string) error { return os.Link(l+"/etc/job", filepath.Dir(l)+"/elsewhere") }},
	{"an empty file is linked from outside", "link count", func(l, _ string) error { return os.Link(l+"/usr/empty1", filepath.Dir(l)+"/elsewhere") }},
	{"a file's time is one nanosecond off", "mtime", func(l, _ string) error { return utimes(l+"/usr/one", 1700000000, 6) }},
	{"a symlink's time is lost", "mtime", func(l, _ string) error { return utimes(l+"/usr/symlink1", 0, 0) }},
	{"a directory's time is lost", "mtime", func(_, u string) error { return utimes(u+"/usr", 0, 0) }},
	{"a device's time is lost", "mtime", func(l, _ string) error { return utimes(l+"/usr/device", 0, 0) }},
	{"an owner differs", "uid", func(l, _ string) error { return os.Lchown(l+"/usr/symlink2", 1, 0) }},
	{"a suid bit is lost", "mode", func(l, _ string) error { return os.Chmod(l+"/usr/suid", 0o755) }},
	{"an attribute is lost", "attribute user.a", func(l, _ string) error { return unix.Removexattr(l+"/usr/attrs", "user.a") }},
	{"an attribute too many", "attribute user.b", func(l, _ string) error { return unix.Setxattr(l+"/usr", "user.b", nil, 0) }},
	{"a byte differs", "content", func(_, u string) error { return overwrite(u + "/usr/three") }},
	{"a device has another number", "rdev", func(l, _ string) error {
		return errors.Join(os.Remove(l+"/usr/device"), unix.Mknod(l+"/usr/device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), utimes(l+"/usr/device", 1700000000, 5))
	}},
	{"a name is missing", "existence", func(l, _ string) error { return os.Remove(l + "/usr/empty2") }},
	{"a name too many", "existence", func(l, _ string) error { return os.WriteFile(l+"/usr/extra", nil, 0o644) }},
	{"a whiteout too many", "existence", func(_, u string) error { return unix.Mknod(u+"/usr/one", unix.S_IFCHR, 0) }},
	{"blocks that overlay does not need", "blocks of all files", func(_, u string) error { return allocate(u + "/usr/three") }},
}

// TestHarnessFindsMutations is what makes a green run of TestChains mean
// something: each broken promise is found, under its own name.
func TestHarnessFindsMutations(t *testing.T) {
	t.Parallel()
	dir := testfs.Mount(t, "ext4")
	for i, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			p := open(t, filepath.Join(dir, fmt.Sprint(i)))
			run := func() []differential.Difference {
				t.Helper()
				list, err := p.Run(1, sample())
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			if list := run(); len(list) > 0 {
				t.Fatalf("differences before the mutation:\n%s", format(list))
			}
			p.Tamper = func(ids []string) error { return m.do(p.Ours.TreeDir(ids[0]), p.Ours.TreeDir(ids[1])) }
			list := run()
			if !slices.ContainsFunc(list, func(d differential.Difference) bool { return d.What == m.want }) {
				t.Errorf("the harness did not find a difference in %q; it found:\n%s", m.want, format(list))
			}
		})
	}
}

func relink(from, to string) error { return errors.Join(os.Remove(to), os.Link(from, to)) }

func split(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(name), os.WriteFile(name, b, 0o644), utimes(name, 1700000000, 5))
}

func utimes(name string, sec, nsec int64) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}, unix.AT_SYMLINK_NOFOLLOW)
}

func overwrite(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("E"), 0)
	return errors.Join(err, f.Close(), utimes(name, 1700000000, 5))
}

func allocate(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20), f.Close(), utimes(name, 1700000000, 5))
}
