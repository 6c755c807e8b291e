package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A golden is one vector: a value, and a way to have ostree make an object of it.
type golden struct {
	name, comment string
	typ           object.Type
	entries       []entry       // what is committed; a file's vector is of the last
	args          []string      // of ostree commit
	commit        object.Commit // for a commit: the value, without its tree
}

// goldens makes each vector with ostree and compares it with its file below dir.
func goldens(work, dir string, write bool) (int, error) {
	if err := os.MkdirAll(work, 0o755); err != nil {
		return 0, err
	}
	made := version()
	for i, g := range goldenList {
		text, err := g.make(fmt.Sprintf("%s/%d", work, i), made)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", g.name, err)
		}
		path := filepath.Join(dir, g.name+".txtar")
		if write {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				return 0, err
			}
			continue
		}
		there, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(content(there), content(text)) {
			return 0, fmt.Errorf("%s differs from what %s makes:\n%s", path, made, text)
		}
	}
	return len(goldenList), nil
}

// madeBy begins the last section of a vector's file, which is in txtar form.
const madeBy = "-- made by --\n"

// content is a vector without the line that says who made it.
func content(text []byte) []byte {
	head, _, _ := bytes.Cut(text, []byte(madeBy))
	return head
}

// make has ostree commit the golden's entries and returns the vector's file.
func (g *golden) make(work, made string) ([]byte, error) {
	in := work + "/in"
	if err := build(in, g.entries); err != nil {
		return nil, err
	}
	r, err := newRepo(work + "/repo")
	if err != nil {
		return nil, err
	}
	c, err := r.commit(in, append([]string{"--timestamp=@0"}, g.args...)...)
	if err != nil {
		return nil, err
	}
	var commit object.Commit
	if b, err := r.read(object.Name{Checksum: c, Type: object.TypeCommit}); err != nil {
		return nil, err
	} else if err := commit.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	var input any
	var raw []byte
	name := object.Name{Type: g.typ}
	switch g.typ {
	case object.TypeCommit:
		value := g.commit
		value.Tree, value.Meta = commit.Tree, commit.Meta
		name.Checksum, input = c, value
	case object.TypeDirTree:
		name.Checksum = commit.Tree
		input, err = tree(in, r)
	case object.TypeDirMeta:
		name.Checksum = commit.Meta
		var h object.FileHeader
		h, err = header(in)
		input = object.DirMeta{UID: h.UID, GID: h.GID, Mode: h.Mode, Xattrs: h.Xattrs}
	case object.TypeFile:
		name.Checksum, input, raw, err = g.file(in, r, commit.Tree)
	}
	if err != nil {
		return nil, err
	}
	if g.typ != object.TypeFile {
		if raw, err = r.read(name); err != nil {
			return nil, err
		}
	}
	return g.format(input, raw, name.Checksum, made)
}

// tree returns the directory at path, computed from the files.
func tree(path string, r repo) (*object.DirTree, error) {
	w := walker{repo: r, seen: map[object.Name]bool{}}
	c, _, err := w.dir(path)
	if err != nil {
		return nil, err
	}
	b, err := r.read(object.Name{Checksum: c, Type: object.TypeDirTree})
	if err != nil {
		return nil, err
	}
	t := &object.DirTree{}
	return t, t.UnmarshalBinary(b)
}

// A file's vector is its header, framed as it is hashed, and its body. A bare
// repository does not hold the header, so the bytes are ours; that the checksum
// is ostree's proves them.
type file struct {
	Header object.FileHeader
	Body   []byte
}

func (g *golden) file(in string, r repo, tree object.Checksum) (c object.Checksum, f file, raw []byte, err error) {
	e := g.entries[len(g.entries)-1]
	if f.Header, err = header(in + "/" + e.name); err != nil {
		return c, f, nil, err
	}
	f.Body = []byte(e.body)
	b, err := r.read(object.Name{Checksum: tree, Type: object.TypeDirTree})
	if err != nil {
		return c, f, nil, err
	}
	var t object.DirTree
	if err := t.UnmarshalBinary(b); err != nil {
		return c, f, nil, err
	}
	c = t.Files[0].Checksum
	raw, err = f.Header.MarshalBinary()
	return c, f, raw, err
}

func (g *golden) format(input any, raw []byte, c object.Checksum, made string) ([]byte, error) {
	text, err := json.MarshalIndent(input, "", "\t")
	if err != nil {
		return nil, err
	}
	var dump strings.Builder
	for chunk := range slices.Chunk(raw, 32) {
		dump.WriteString(hex.EncodeToString(chunk) + "\n")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n-- type --\n%s\n-- input --\n%s\n-- hex --\n%s", g.comment, g.typ, text, dump.String())
	fmt.Fprintf(&b, "-- checksum --\n%s\n%s%s\n", c, madeBy, made)
	return []byte(b.String()), nil
}
