package plugin_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	storage "go.podman.io/storage"
	"go.podman.io/storage/pkg/idtools"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestShiftedContainers has containers/storage make containers with maps of their own. None needs a layer beside the image's, and root
// is the host's user of each map.
func TestShiftedContainers(t *testing.T) {
	dir := testfs.Mount(t, "ext4")
	s := openStore(t, dir)
	defer closeStore(t, s)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Uid: 7, Gid: 8}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img := putImage(t, s, "shifted", b.Bytes())
	for i := range 3 {
		host := 100000 * (i + 1)
		maps := []idtools.IDMap{{ContainerID: 0, HostID: host, Size: 65536}}
		o := &storage.ContainerOptions{}
		o.UIDMap, o.GIDMap = maps, maps
		c, err := s.CreateContainer(fmt.Sprint("c", i), nil, img.ID, "", "", o)
		if err != nil {
			t.Fatal(err)
		}
		root, err := s.Mount(c.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(filepath.Join(root, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); int(st.Uid) != host+7 || int(st.Gid) != host+8 {
			t.Errorf("container %d: owner %d:%d", i, st.Uid, st.Gid)
		}
		if _, err := s.Unmount(c.ID, true); err != nil {
			t.Error(err)
		}
	}
	all, err := s.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 {
		t.Errorf("there are %d layers, want the image's and three containers'", len(all))
	}
}
