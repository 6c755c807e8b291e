package integration_test

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// writeFarTree writes a layer with one of each whose owner is in nobody's range, and files of root's.
func writeFarTree(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, h := range []*tar.Header{
		{Name: "far/", Typeflag: tar.TypeDir, Mode: 0o2775}, {Name: "far/file", Typeflag: tar.TypeReg, Mode: 0o640}, {Name: "far/suid", Typeflag: tar.TypeReg, Mode: 0o6755},
		{Name: "far/hard", Typeflag: tar.TypeLink, Linkname: "far/file", Mode: 0o640}, {Name: "far/link", Typeflag: tar.TypeSymlink, Linkname: "file", Mode: 0o777},
		{Name: "far/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
	} {
		h.Uid, h.Gid = 4000000, 4000001
		err = errors.Join(err, w.WriteHeader(h))
	}
	err = errors.Join(err, w.WriteHeader(&tar.Header{Name: "near", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 5, Gid: 6}))
	if err := errors.Join(err, w.Close(), f.Chmod(0o644), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// ignore_chown_errors does what it does with overlay, and force_mask is refused as there.
func TestRootlessOptionsAsOverlay(t *testing.T) {
	t.Parallel()
	podman := programs.Find(t, "podman")
	u := programs.NewUser(t)
	dir := testfs.Mount(t, "ext4")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, driver := range []string{"ostree", "overlay"} {
		s := programs.NewRootless(t, filepath.Join(dir, driver), u, podman, driver)
		layer := filepath.Join(s.Home, "far.tar")
		writeFarTree(t, layer)
		call := func(option string, args ...string) programs.Call {
			command := []string{podman.Path}
			if option != "" {
				command = append(command, "--storage-opt", driver+"."+option)
			}
			return s.Call(append(command, args...)...)
		}
		if r := call("", "import", "--quiet", layer, "localhost/far:1").Exec(t); r.Code == 0 || !strings.Contains(r.Stderr, "far") {
			t.Errorf("%s: owners that the user has not:\n%v", driver, r)
		}
		if r := call("force_mask=shared", "images").Exec(t); r.Code == 0 || !strings.Contains(r.Stderr, "force_mask") {
			t.Errorf("%s: force_mask:\n%v", driver, r)
		}
		id := s.Must(call("ignore_chown_errors=true", "import", "--quiet", layer, "localhost/far:1"))
		const look = `m=$("$0" --storage-opt $2.ignore_chown_errors=true image mount "$1"); cd "$m"; test far/file -ef far/hard; find . ! -name . -print0 | sort -z | xargs -0 stat -c '%n %F %a %u:%g %s'
			cd /; "$0" --storage-opt $2.ignore_chown_errors=true image umount "$1" >/dev/null`
		seen = append(seen, s.Must(s.Call(podman.Path, "unshare", "sh", "-ec", look, podman.Path, id, driver)))
	}
	if !strings.Contains(seen[0], "far/suid") {
		t.Errorf("the image shows %q", seen[0])
	}
	same(t, "an image with ignore_chown_errors", seen[0], seen[1])
}
