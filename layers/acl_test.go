package layers_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// TestListsAcrossFilesystems has files with access control lists on ext4 and on xfs, which lists them a second time in a form of its own.
// There they are in the objects, for ostree hashes what it finds; a checkout on the other filesystem is what the image is there.
func TestListsAcrossFilesystems(t *testing.T) {
	ctx := context.Background()
	list := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	data := makeTar(t, dir("d/", 0o755).attr("system.posix_acl_default", list).attr("system.posix_acl_access", list),
		file("d/file", "text").attr("system.posix_acl_access", list).attr("user.u", "1"), link("d/hard", "d/file"), file("plain", "x"),
		dir("etc/", 0o755), file("etc/own", "text").attr("system.posix_acl_access", list))
	kinds := []string{"ext4", "xfs"}
	var bases []string
	var all []*layers.Layer
	for _, kind := range kinds {
		base := testfs.Mount(t, kind)
		l := apply(t, openCatalog(t, base+"/home", layers.Options{}), "img", "", data)
		bases, all = append(bases, base), append(all, l)
		if out, err := exec.Command("ostree", "fsck", "--quiet", "--repo="+l.Catalog().Repo().Path()).CombinedOutput(); err != nil {
			t.Errorf("%s: ostree fsck: %v: %s", kind, err, out)
		}
		if tree := describeTree(t, l.TreeDir(), true); strings.Contains(tree["d/file"], "SGI_ACL_FILE") != (kind == "xfs") ||
			!strings.Contains(tree["d/file"], "posix_acl_access") || !strings.Contains(tree["d"], "posix_acl_default") {
			t.Errorf("%s: %s; %s", kind, tree["d/file"], tree["d"])
		}
	}
	if all[0].Commit == all[1].Commit {
		t.Error("the commits are equal: is this test of any use?")
	}
	for from, l := range all {
		m, err := layers.Merge(ctx, []*layers.Layer{l})
		must(t, err)
		for to, base := range bases {
			want := describeTree(t, all[to].TreeDir(), true)
			flat := base + "/flat-of-" + kinds[from]
			must(t, layers.Flat{Copy: true}.Materialise(ctx, m, flat))
			compareTrees(t, want, describeTree(t, flat, true))
			out := base + "/checkout-of-" + kinds[from]
			must(t, os.Mkdir(out, 0o700))
			must(t, layers.Checkout(ctx, l.Catalog().Repo(), l.Commit, out, layers.CheckoutOptions{}))
			compareTrees(t, want, describeTree(t, out, true))
		}
	}
	// What cannot be the same object there is not made one.
	for i, l := range all {
		if err := layers.Clone(ctx, openCatalog(t, bases[1-i]+"/other", layers.Options{}), l, layers.CloneOptions{}); !errors.Is(err, layers.ErrUnsupported) {
			t.Errorf("clone from %s to %s: %v", kinds[i], kinds[1-i], err)
		}
	}
}
