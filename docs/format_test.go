// Package docs_test holds docs/format.md to what the code does: the worked
// examples on that page are compared with a layer that is stored here.
package docs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// exampleTar is the layer tar of the page's examples.
func exampleTar(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	at := time.Unix(1700000000, 0)
	for _, e := range []struct {
		tar.Header
		body string
	}{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "dev/", Mode: 0o755, ModTime: at}},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: at}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "etc/motd", Mode: 0o644, ModTime: at, PAXRecords: map[string]string{
			"SCHILY.xattr.user.a": "1",
		}}, body: "hello\n"},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "etc/.wh.old", Mode: 0o644, ModTime: at}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "usr/sh", Mode: 0o755, ModTime: at.Add(time.Second / 2), Format: tar.FormatPAX}, body: "#!\n"},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "usr/vi", Linkname: "usr/sh", Mode: 0o755, ModTime: at.Add(time.Second / 2), Format: tar.FormatPAX}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "caf\xe9", Linkname: "usr", ModTime: at}},
	} {
		e.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// store makes a home and stores the example in it.
func store(t *testing.T, home string) *layers.Catalog {
	t.Helper()
	c, err := layers.OpenCatalog(home, layers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Create("base_1", "", layers.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Stage(context.Background(), exampleTar(t), layers.StageOptions{ID: "base_1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := c.Commit("base_1", s); err != nil {
		t.Fatal(err)
	}
	return c
}

// example returns what the page shows, by the names that it has there.
func example(t *testing.T) map[string][]byte {
	t.Helper()
	home := t.TempDir()
	c := store(t, home)
	got := map[string][]byte{}
	keep := func(name, path string) []byte {
		b, err := os.ReadFile(home + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = b
		return b
	}
	keep("version", "version")
	keep("record", "layers/base_1/record")
	keep("config", "repo/extensions/ostree-storage/config")
	ref := keep("ref", "repo/refs/heads/layer/base__1")
	keep("inodes", "layers/base_1/inodes")
	sum, err := object.ParseChecksum(strings.TrimSpace(string(ref)))
	if err != nil {
		t.Fatal(err)
	}
	keep("commit", "repo/objects/"+object.Name{Checksum: sum, Type: object.TypeCommit}.LoosePath())
	commit, err := c.Repo().ReadCommit(sum)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range commit.Metadata {
		got[e.Key] = e.Value.Data
	}
	keep("dirtree", "repo/objects/"+object.Name{Checksum: commit.Tree, Type: object.TypeDirTree}.LoosePath())
	keep("dirmeta", "repo/objects/"+object.Name{Checksum: commit.Meta, Type: object.TypeDirMeta}.LoosePath())
	etc, err := c.Repo().ReadDirTree(find(t, c, commit.Tree, "etc"))
	if err != nil {
		t.Fatal(err)
	}
	h, f, err := c.Repo().OpenFile(etc.Files[1].Checksum)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got["header"], err = h.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]object.Checksum{"file": etc.Files[1].Checksum, "commit": sum, "dirtree": commit.Tree, "dirmeta": commit.Meta} {
		got["checksum of "+name] = []byte(c.String())
	}
	return got
}

func find(t *testing.T, c *layers.Catalog, tree object.Checksum, name string) object.Checksum {
	t.Helper()
	d, err := c.Repo().ReadDirTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range d.Dirs {
		if e.Name == name {
			return e.Tree
		}
	}
	t.Fatalf("no directory %s", name)
	return tree
}

// A block is a fenced block whose first line says what it shows: "hex NAME" or "text NAME".
var block = regexp.MustCompile("(?ms)^```(hex|text) ([^\n]+)\n(.*?)^```$")

// TestExamples compares each worked example of format.md with the stored layer.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile("format.md")
	if err != nil {
		t.Fatal(err)
	}
	got, shown := example(t), map[string]bool{}
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		kind, name, text := m[1], m[2], []byte(m[3])
		shown[name] = true
		if kind == "hex" {
			text = bytesOf(t, name, m[3])
		}
		if !bytes.Equal(text, got[name]) {
			t.Errorf("%s is shown as\n%s\nand is\n%s", name, show(kind, text), show(kind, got[name]))
		}
	}
	for name, b := range got {
		if text, ok := strings.CutPrefix(name, "checksum of "); ok {
			if !bytes.Contains(page, b) {
				t.Errorf("the checksum of the %s, %s, is not on the page", text, b)
			}
		} else if !shown[name] && name != "inodes" { // inode numbers differ from place to place
			t.Errorf("%s is not on the page:\n%s\n%q", name, hex.Dump(b), b)
		}
	}
}

func show(kind string, b []byte) string {
	if kind == "hex" {
		return hex.Dump(b)
	}
	return string(b)
}

// bytesOf reads a hex dump: pairs of digits, and after two spaces what they mean.
func bytesOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(text) {
		digits, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "  ")
		raw, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatal(fmt.Errorf("%s: line %q: %w", name, line, err))
		}
		b = append(b, raw...)
	}
	return b
}

// TestOstree runs what §14 says of the real ostree on a store that has the example.
func TestOstree(t *testing.T) {
	bin, err := exec.LookPath("ostree")
	if err != nil {
		t.Skip("needs the ostree program:", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: mode bare keeps owners")
	}
	home := t.TempDir()
	store(t, home)
	run := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command(bin, append(args, "--repo="+home+"/repo")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("ostree %s: %v, want %q in:\n%s", strings.Join(args, " "), err, want, out)
		}
	}
	const ref = "layer/base__1"
	run("no errors", "fsck")
	run(ref, "refs")
	run("", "rev-parse", ref)
	run("commit ", "show", ref)
	run("ostree-storage.times", "show", "--raw", ref)
	run("commit ", "log", ref)
	run("/.oci-raw.", "ls", "-R", "-C", "-X", ref)
	run("", "checkout", "-H", ref, home+"/linked")
	run("", "checkout", "-C", ref, home+"/copied")
	run("", "checkout", "-H", "--union", "--whiteouts", ref, home+"/whited")
	for path, there := range map[string]bool{
		"linked/etc/.wh.old": true, "copied/etc/.wh.old": true, "whited/etc/.wh.old": false, "whited/usr/vi": true, "linked/dev/null": false,
	} {
		if _, err := os.Lstat(home + "/" + path); (err == nil) != there {
			t.Errorf("%s: %v, want it there: %v", path, err, there)
		}
	}
	if out, err := exec.Command(bin, "init", "--mode=bare", "--repo="+home+"/other").CombinedOutput(); err != nil {
		t.Fatalf("ostree init: %v\n%s", err, out)
	}
	if out, err := exec.Command(bin, "pull-local", "--repo="+home+"/other", home+"/repo", ref).CombinedOutput(); err != nil {
		t.Errorf("ostree pull-local: %v\n%s", err, out)
	}
	run("", "commit", "--branch=mine", home+"/layers/base_1/tree/usr")
	run("", "prune")
	run("", "prune", "--refs-only", "--depth=0")
	run("mine", "refs")
	run("no errors", "fsck")
}
