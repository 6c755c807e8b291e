package object_test

import (
	"testing"

	"github.com/ostree-storage/ostree-storage/store/object"
)

func TestKnownChecksums(t *testing.T) {
	file := func(h object.FileHeader, body string) string {
		c, err := h.Checksum([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return c.String()
	}
	encoded := func(v interface {
		AppendBinary([]byte) ([]byte, error)
		UnmarshalBinary([]byte) error
	}) string {
		b, err := v.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.UnmarshalBinary(b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		return object.Sum(b).String()
	}
	suid, _ := object.ParseChecksum("ff42d0a886b8201228eddc9087d94f30321846ccd5c5696413aa31b8e35c20f0")
	tree, _ := object.ParseChecksum("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
	meta, _ := object.ParseChecksum("446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488")
	for _, c := range []struct{ what, got, want string }{
		{"hello", file(object.FileHeader{Mode: 0o100644}, "hello\n"), "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b"},
		{"symlink", file(object.FileHeader{Mode: 0o120777, Target: "../a.txt"}, ""), "9c82f69c8e4d418d86e433de636321d6309e8cd2738d7351d0459ae936fdfd37"},
		{"xattrs", file(object.FileHeader{Mode: 0o100644, Xattrs: []object.Xattr{{"user.alpha", []byte("A")}, {"user.zeta", []byte("z1")}}}, "xattr file"), "b01935b59337dcb096c200f5c26d325f8f9089e6ac30a359193555eb04b32336"},
		{"dirmeta", encoded(&object.DirMeta{Mode: 0o40755}), meta.String()},
		{"empty tree", encoded(&object.DirTree{}), tree.String()},
		{"tree", encoded(&object.DirTree{Files: []object.TreeFile{{"suid", suid}}}), "a7571b60292c649a95e1eb8e97bd46cb6dc701cb09e75f0fc68b619539f1725a"},
		{"commit", encoded(&object.Commit{Tree: tree, Meta: meta}), "6109d33e99f48e9b90cdf8ad037b8e5d20ef899697cfd3eb492cf78800aed498"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.what, c.got, c.want)
		}
	}
}
