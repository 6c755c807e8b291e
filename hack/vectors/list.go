package main

import (
	"fmt"
	"strings"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// top is the entry of a committed directory itself.
func top(mode uint32, uid, gid int, xattrs map[string]string) entry {
	return entry{name: "/", mode: mode, uid: uid, gid: gid, xattrs: xattrs}
}

// plainTop is the directory that nearly every system has most of.
var plainTop = top(0o755, 0, 0, nil)

// numbered returns n entries with names of this length.
func numbered(format string, n int) (list []entry) {
	for i := range n {
		list = append(list, entry{name: fmt.Sprintf(format, i), mode: 0o755})
	}
	return list
}

// files returns a golden for each of the kinds that is no directory.
func files() (list []golden) {
	for _, e := range kinds {
		if strings.Contains(e.name, "/") {
			continue
		}
		list = append(list, golden{
			name: "file-" + strings.ReplaceAll(e.name, "ü", "u"), comment: "A file or symlink: its framed header, and its body.",
			typ: object.TypeFile, entries: []entry{plainTop, e},
		})
	}
	return list
}

// parent is any checksum.
const parent = "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b"

func mustParse(s string) object.Checksum {
	c, err := object.ParseChecksum(s)
	if err != nil {
		panic(err)
	}
	return c
}

var goldenList = append(files(), []golden{
	{
		name: "dirtree-empty", comment: "An empty directory.",
		typ: object.TypeDirTree, entries: []entry{plainTop},
	},
	{
		name: "dirtree-one-file", comment: "A directory with one file.",
		typ:     object.TypeDirTree,
		entries: []entry{plainTop, {name: "suid", body: "x", mode: 0o755, uid: 1000, gid: 1001}},
	},
	{
		name: "dirtree-one-dir", comment: "A directory with one directory.",
		typ: object.TypeDirTree, entries: []entry{plainTop, {name: "bin/", mode: 0o755}},
	},
	{
		name: "dirtree-names", comment: "Names that sort by bytes: capitals first, UTF-8 last. Whiteouts are names like any other.",
		typ: object.TypeDirTree,
		entries: []entry{
			plainTop, {name: "b", target: "a"}, {name: "B", mode: 0o644}, {name: "é", mode: 0o644}, {name: "-", mode: 0o644},
			{name: ".wh.gone", mode: 0o644}, {name: ".wh..wh..opq", mode: 0o644}, {name: "new\nline", mode: 0o644},
			{name: "a/", mode: 0o755}, {name: "Z/", mode: 0o700}, {name: "日本/", mode: 0o755},
		},
	},
	{
		name: "dirtree-long-names", comment: "Names so long that their own tuples need offsets of two bytes.",
		typ: object.TypeDirTree,
		entries: []entry{
			plainTop, {name: strings.Repeat("f", 255), mode: 0o644}, {name: strings.Repeat("d", 255) + "/", mode: 0o755},
		},
	},
	{
		name: "dirtree-two-byte-offsets", comment: "Enough names for framing offsets of two bytes.",
		typ: object.TypeDirTree, entries: append(append([]entry{plainTop}, numbered("f%03d", 20)...), numbered("d%03d/", 5)...),
	},
	{
		name: "dirmeta-root-0755", comment: "The most common object there is.",
		typ: object.TypeDirMeta, entries: []entry{plainTop},
	},
	{
		name: "dirmeta-sticky-attribute", comment: "A sticky directory with an attribute.",
		typ: object.TypeDirMeta, entries: []entry{top(0o1777, 0, 0, map[string]string{"user.dirattr": "dd"})},
	},
	{
		name: "dirmeta-owner-attributes", comment: "An owner, the set-group-ID bit, and attributes that need offsets of two bytes.",
		typ: object.TypeDirMeta,
		entries: []entry{top(0o2750, 1000, 1001, map[string]string{
			"user.b": strings.Repeat("w", 300), "user.a": "1", "security.selinux": "system_u:object_r:usr_t:s0\x00",
		})},
	},
	{
		name: "commit-minimal", comment: "All empty, of an empty directory.",
		typ: object.TypeCommit, entries: []entry{plainTop},
	},
	{
		name: "commit-metadata", comment: "Metadata, a subject and a time.",
		typ: object.TypeCommit, entries: []entry{plainTop},
		args: []string{"--add-metadata-string=k=v", "--bind-ref=test/one", "--subject=Subj", "--timestamp=@1700000000"},
		commit: object.Commit{
			Metadata: []object.MetadataEntry{
				{Key: "k", Value: object.StringVariant("v")},
				{Key: "ostree.ref-binding", Value: object.StringsVariant([]string{"test/one"})},
			},
			Subject: "Subj", Timestamp: 1700000000,
		},
	},
	{
		name: "commit-parent-types", comment: "A parent, a body, and metadata of many types.",
		typ: object.TypeCommit, entries: []entry{plainTop},
		args: []string{
			"--parent=" + parent, "--subject=Sübject", "--body=two\nlines", "--add-metadata=y=byte 1",
			"--add-metadata=ay=[byte 0x00, 0xff]", "--add-metadata=none=@ay []", "--add-metadata=b=true",
			"--add-metadata=nested=[{'a', <(byte 1, 'x', int64 2)>}]", "--add-metadata=pairs=[(byte 1, uint32 2)]",
		},
		commit: object.Commit{
			Metadata: []object.MetadataEntry{
				{Key: "y", Value: object.ByteVariant(1)},
				{Key: "ay", Value: object.BytesVariant([]byte{0, 255})},
				{Key: "none", Value: object.BytesVariant(nil)},
				{Key: "b", Value: object.Variant{Type: "b", Data: []byte{1}}},
				{Key: "nested", Value: object.Variant{Type: "a{sv}", Data: []byte("" +
					"a\x00\x00\x00\x00\x00\x00\x00" + // key, to a multiple of 8
					"\x01x\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03" + // the tuple, its offset
					"\x00(ysx)\x02" + // its type; the entry's offset
					"\x20")}}, // the list's offset
				{Key: "pairs", Value: object.Variant{Type: "a(yu)", Data: []byte{1, 0, 0, 0, 2, 0, 0, 0}}},
			},
			Parent: mustParse(parent), Subject: "Sübject", Body: "two\nlines",
		},
	},
}...)
