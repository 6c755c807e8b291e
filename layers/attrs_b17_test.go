package layers_test

import (
	"fmt"
	"testing"

	"github.com/ostree-storage/ostree-storage/layers"
)

// TestB17Attributes has one content with other capabilities, access control lists and attributes: none of them may come to share an
// inode, in one layer or in two.
func TestB17Attributes(t *testing.T) {
	needRoot(t)
	c := openCatalog(t, tmpfs(t)+"/home", layers.Options{})
	const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	const other = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	forms := []item{
		file("x", "one content"), file("x", "one content").attr("security.capability", capability), file("x", "one content").attr("security.capability", other),
		file("x", "one content").attr("user.a", "1"), file("x", "one content").attr("user.a", "2"), file("x", "one content").attr("user.b", "1"),
		file("x", "one content").attr("trusted.a", "1"), file("x", "one content").attr("security.ima", "\x03\x01"),
	}
	inodes := map[uint64]string{}
	see := func(l *layers.Layer, path, form string) {
		t.Helper()
		st := statOf(t, l.TreeDir()+"/"+path)
		if was, ok := inodes[st.Ino]; ok && was != form {
			t.Errorf("form %s has the inode of form %s", form, was)
		}
		inodes[st.Ino] = form
	}
	var all []item
	for i, form := range forms {
		see(apply(t, c, fmt.Sprint("l", i), "", makeTar(t, form)), "x", fmt.Sprint(i))
		form.Name = fmt.Sprint("x", i)
		all = append(all, form)
	}
	l := apply(t, c, "all", "", makeTar(t, all...))
	for i := range forms {
		see(l, fmt.Sprint("x", i), fmt.Sprint(i))
	}
	if len(inodes) != len(forms) {
		t.Errorf("%d inodes for %d forms: equal ones are not shared", len(inodes), len(forms))
	}
	compareCheckout(t, c, l)
}
