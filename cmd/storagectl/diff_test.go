package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestDiffIsQuickerThanAWalk compares two images of many files, which takes less than looking at their checkouts.
func TestDiffIsQuickerThanAWalk(t *testing.T) {
	files := 10_000
	if os.Getenv("SOAK") != "" {
		files = 50_000
	}
	dir := testfs.Mount(t, "ext4")
	isolate(t)
	s := openTest(t, dir)
	for _, name := range []string{"p", "q"} {
		id := fmt.Sprintf("%064x", name[0])
		if _, _, err := s.PutLayer(id, "", nil, "", false, nil, bytes.NewReader(manyFiles(t, files, name))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateImage(id, []string{"localhost/" + name + ":latest"}, id, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	closeTest(t, s)
	a := &app{out: io.Discard, errOut: io.Discard, format: "json", root: dir + "/root", runroot: dir + "/run", storageOpts: []string{"pinned_store=none"}}
	defer a.close()
	from, err := a.tree("p", false)
	if err != nil {
		t.Fatal(err)
	}
	to, err := a.tree("q", false)
	if err != nil {
		t.Fatal(err)
	}
	walk := quickest(t, func() error { return walkAll(from[0].TreeDir(), to[0].TreeDir()) })
	var v *diffAnswer
	diff := quickest(t, func() error {
		v = &diffAnswer{}
		return v.compare(from, to, false)
	})
	t.Logf("%d files: diff %v, walk %v", files, diff, walk)
	if v.Changed != 100 || v.Added != 0 || v.Removed != 0 {
		t.Errorf("%d changed, %d added, %d removed", v.Changed, v.Added, v.Removed)
	}
	if diff > 3*walk && diff > time.Second/2 {
		t.Errorf("diff takes %v, and walking both trees %v", diff, walk)
	}
}

// quickest is the shortest of three runs.
func quickest(t *testing.T, f func() error) time.Duration {
	t.Helper()
	best := time.Hour
	for range 3 {
		begin := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
	}
	return best
}

func walkAll(dirs ...string) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				_, err = d.Info()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func manyFiles(t *testing.T, n int, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		if i%50 == 0 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d", i/50), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		body := fmt.Sprint("file ", i)
		if i < 100 {
			body += name
		}
		h := &tar.Header{Name: fmt.Sprintf("d%d/file-%d", i/50, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
