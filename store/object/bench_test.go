package object_test

import (
	"fmt"
	"testing"

	"github.com/ostree-storage/ostree-storage/store/object"
)

var (
	plainHeader    = object.FileHeader{Mode: 0o100644}
	labelledHeader = object.FileHeader{Mode: 0o100755, UID: 1000, GID: 1000, Xattrs: []object.Xattr{
		{Name: "security.selinux", Value: []byte("system_u:object_r:container_ro_file_t:s0\x00")},
	}}
)

// TestAllocations holds what an ingest of tens of thousands of files counts on.
func TestAllocations(t *testing.T) {
	body, buf := []byte("hello\n"), make([]byte, 0, 512)
	for name, test := range map[string]struct {
		most float64
		do   func()
	}{
		"Checksum":     {0, func() { labelledHeader.Checksum(body) }},
		"AppendBinary": {0, func() { labelledHeader.AppendBinary(buf) }},
		"NewHash":      {1, func() { labelledHeader.NewHash() }}, // the hash itself
		"LoosePath":    {1, func() { object.Name{Type: object.TypeDirTree}.LoosePath() }},
	} {
		if got := testing.AllocsPerRun(1000, test.do); got > test.most {
			t.Errorf("%s makes %v allocations, want at most %v", name, got, test.most)
		}
	}
	tree, bytes := largeTree(t, 10000)
	if got := testing.AllocsPerRun(5, func() { tree.AppendBinary(bytes[:0]) }); got > 0 {
		t.Errorf("AppendBinary of a large directory makes %v allocations", got)
	}
	if got := testing.AllocsPerRun(5, func() { new(object.DirTree).UnmarshalBinary(bytes) }); got > 5 {
		t.Errorf("UnmarshalBinary of a large directory makes %v allocations", got)
	}
}

// largeTree returns a directory of n files and n/10 directories, and its bytes.
func largeTree(tb testing.TB, n int) (*object.DirTree, []byte) {
	tb.Helper()
	t := &object.DirTree{}
	c := object.Sum([]byte("c"))
	for i := range n {
		t.Files = append(t.Files, object.TreeFile{Name: fmt.Sprintf("file-%08d", i), Checksum: c})
		if i%10 == 0 {
			t.Dirs = append(t.Dirs, object.TreeDir{Name: fmt.Sprintf("dir-%08d", i), Tree: c, Meta: c})
		}
	}
	b, err := t.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	return t, b
}

func BenchmarkHeaderChecksum(b *testing.B) {
	body := []byte("hello\n")
	for name, h := range map[string]*object.FileHeader{"plain": &plainHeader, "labelled": &labelledHeader} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Checksum(body)
			}
		})
	}
}

func BenchmarkHeaderNewHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		labelledHeader.NewHash()
	}
}

func BenchmarkDirTree(b *testing.B) {
	for _, n := range []int{10, 1000, 100000} {
		t, raw := largeTree(b, n)
		b.Run(fmt.Sprintf("encode/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				t.AppendBinary(raw[:0])
			}
		})
		b.Run(fmt.Sprintf("decode/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				new(object.DirTree).UnmarshalBinary(raw)
			}
		})
	}
}

func BenchmarkCommitMetadata(b *testing.B) {
	c := object.Commit{Tree: object.Sum(nil), Meta: object.Sum(nil)}
	for i := range 8 {
		c.Metadata = append(c.Metadata, object.MetadataEntry{Key: fmt.Sprintf("ostree-storage.%d", i), Value: object.BytesVariant(make([]byte, 100000))})
	}
	raw, err := c.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		new(object.Commit).UnmarshalBinary(raw)
	}
}
