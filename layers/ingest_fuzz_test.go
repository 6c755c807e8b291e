package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
)

// FuzzIngest holds for any bytes: no panic, nothing outside of the home, and what is taken comes out of the repository as it is in the
// tree, in a repository without a fault.
func FuzzIngest(f *testing.F) {
	needRoot(f)
	base := tmpfs(f)
	c := openCatalog(f, base+"/home", layers.Options{})
	for _, items := range [][]item{
		{dir("./", 0o755), file("usr/a", "hello\n"), link("usr/b", "usr/a"), symlink("usr/c", "a"), file("x/.wh.y", ""), file("x/.wh..wh..opq", "")},
		{of(tar.TypeChar, "c"), of(tar.TypeFifo, "p"), link("p2", "p"), file("\xff", "1").attr("user.x", ""), file("a", "1"), file("a", "2")},
		{symlink("l", "../../d"), file("l/x", "1"), dir("d", 0o2700).attr("trusted.overlay.opaque", "y"), link("d/l", "l")},
	} {
		f.Add(makeTar(f, items...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := tryApply(c, "fuzz", "", data)
		if err == nil {
			compareCheckout(t, c, l)
			must(t, c.Repo().Fsck(context.Background(), store.FsckOptions{Workers: 1}, func(f store.Finding) { t.Errorf("fsck: %+v", f) }))
		}
		if c.Exists("fuzz") {
			removeAll(t, c, "fuzz")
		}
		entries, err := os.ReadDir(base)
		must(t, err)
		for _, e := range entries {
			if bytes.HasPrefix([]byte(e.Name()), []byte("checkout")) {
				must(t, os.RemoveAll(base+"/"+e.Name()))
			} else if e.Name() != "home" {
				t.Errorf("made %s", e.Name())
			}
		}
	})
}
