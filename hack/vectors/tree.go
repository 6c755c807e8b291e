package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// compareTree has ostree commit a tree of many kinds of entries, computes every
// object from the files, and checks that these are the repository's, all of them
// and no others, byte for byte. It returns how many there are.
func compareTree(work string) (int, error) {
	if err := variety(work + "/in"); err != nil {
		return 0, err
	}
	r, err := newRepo(work + "/repo")
	if err != nil {
		return 0, err
	}
	got, err := r.commit(work+"/in", "--subject=All kinds", "--body=of entries\n", "--timestamp=@1700000000",
		"--add-metadata-string=version=7", "--add-metadata=n=uint64 5")
	if err != nil {
		return 0, err
	}
	w := walker{repo: r, seen: map[object.Name]bool{}}
	tree, meta, err := w.dir(work + "/in")
	if err != nil {
		return 0, err
	}
	c := object.Commit{
		Metadata: []object.MetadataEntry{
			{Key: "version", Value: object.StringVariant("7")},
			// The command line writes numbers as the machine has them.
			{Key: "n", Value: object.Variant{Type: "t", Data: []byte{5, 0, 0, 0, 0, 0, 0, 0}}},
		},
		Subject: "All kinds", Body: "of entries\n", Timestamp: 1700000000, Tree: tree, Meta: meta,
	}
	sum, err := w.metadata(object.TypeCommit, &c, &object.Commit{})
	if err != nil {
		return 0, err
	}
	if sum != got {
		return 0, fmt.Errorf("the commit is %s, ostree made %s", sum, got)
	}
	n, err := r.count()
	if err == nil && n != len(w.seen) {
		err = fmt.Errorf("ostree made %d objects, the files give %d", n, len(w.seen))
	}
	return n, err
}

// A walker computes a tree's objects and looks each up in the repository.
type walker struct {
	repo repo
	seen map[object.Name]bool
}

// A codec is what all metadata objects can do.
type codec interface {
	AppendBinary([]byte) ([]byte, error)
	UnmarshalBinary([]byte) error
}

// metadata encodes v, compares it with the repository's object of that name, and
// decodes that into empty, which must encode to the same bytes.
func (w *walker) metadata(t object.Type, v, empty codec) (object.Checksum, error) {
	b, err := v.AppendBinary(nil)
	if err != nil {
		return object.Checksum{}, err
	}
	n := object.Name{Checksum: object.Sum(b), Type: t}
	w.seen[n] = true
	there, err := w.repo.read(n)
	if err != nil {
		return n.Checksum, err
	}
	if !bytes.Equal(b, there) {
		return n.Checksum, fmt.Errorf("%s has other bytes in the repository", n)
	}
	if err := empty.UnmarshalBinary(there); err != nil {
		return n.Checksum, fmt.Errorf("decode %s: %w", n, err)
	}
	if again, err := empty.AppendBinary(nil); err != nil || !bytes.Equal(again, there) {
		return n.Checksum, fmt.Errorf("encode decoded %s: other bytes (%v)", n, err)
	}
	return n.Checksum, nil
}

func (w *walker) dir(path string) (tree, meta object.Checksum, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return tree, meta, err
	}
	var t object.DirTree
	for _, e := range entries {
		p := filepath.Join(path, e.Name())
		if !e.IsDir() {
			c, err := w.file(p)
			if err != nil {
				return tree, meta, fmt.Errorf("%s: %w", p, err)
			}
			t.Files = append(t.Files, object.TreeFile{Name: e.Name(), Checksum: c})
			continue
		}
		d := object.TreeDir{Name: e.Name()}
		if d.Tree, d.Meta, err = w.dir(p); err != nil {
			return tree, meta, err
		}
		t.Dirs = append(t.Dirs, d)
	}
	h, err := header(path)
	if err != nil {
		return tree, meta, err
	}
	m := object.DirMeta{UID: h.UID, GID: h.GID, Mode: h.Mode, Xattrs: h.Xattrs}
	if meta, err = w.metadata(object.TypeDirMeta, &m, &object.DirMeta{}); err == nil {
		tree, err = w.metadata(object.TypeDirTree, &t, &object.DirTree{})
	}
	return tree, meta, err
}

func (w *walker) file(path string) (object.Checksum, error) {
	h, err := header(path)
	if err != nil {
		return object.Checksum{}, err
	}
	var body []byte
	if h.Target == "" {
		if body, err = os.ReadFile(path); err != nil {
			return object.Checksum{}, err
		}
	}
	c, err := h.Checksum(body)
	if err != nil {
		return c, err
	}
	sum, err := h.NewHash()
	if err != nil {
		return c, err
	}
	sum.Write(body)
	n := object.Name{Checksum: object.Checksum(sum.Sum(nil)), Type: object.TypeFile}
	w.seen[n] = true
	if n.Checksum != c || !w.repo.has(n) {
		return c, fmt.Errorf("%s is not in the repository", n)
	}
	return c, nil
}

// header reads what OSTree hashes about a file or directory from its inode.
func header(path string) (h object.FileHeader, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return h, err
	}
	h = object.FileHeader{UID: st.Uid, GID: st.Gid, Mode: st.Mode}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if h.Target, err = os.Readlink(path); err != nil {
			return h, err
		}
	}
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return h, err
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		value := make([]byte, 64<<10)
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return h, err
		}
		if n > 0 {
			h.Xattrs = append(h.Xattrs, object.Xattr{Name: name, Value: slices.Clone(value[:n])})
		}
	}
	object.SortXattrs(h.Xattrs)
	return h, nil
}
