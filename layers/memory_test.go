package layers_test

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// residentPeak returns the most memory that the process had since the last reset, in bytes.
func residentPeak(t testing.TB) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	must(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			must(t, err)
			return kib << 10
		}
	}
	t.Fatal("no peak in /proc/self/status")
	return 0
}

// manyFiles writes a tar of n small files in directories of 100, each with its own content and time.
func manyFiles(w io.Writer, n int) error {
	tw := tar.NewWriter(w)
	for i := range n {
		if i%100 == 0 {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/share/dir%06d/", i/100), Mode: 0o755}); err != nil {
				return err
			}
		}
		body := fmt.Sprintf("content of file %d", i)
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/dir%06d/some-file-%d.txt", i/100, i), Mode: 0o644, Size: int64(len(body)), ModTime: time.Unix(int64(1e9+i*7%100000), 0)}
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, body); err != nil {
			return err
		}
	}
	return tw.Close()
}

// TestMemory stages a layer of many files: 64 MiB and 200 bytes an entry is the most that it may take. LAYERS_FILES says how many.
func TestMemory(t *testing.T) {
	needRoot(t)
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	n := 100_000
	if os.Getenv("SOAK") != "" {
		n = 300_000
	}
	if s := os.Getenv("LAYERS_FILES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		must(t, err)
	} else if testing.Short() {
		n = 50_000
	}
	c := openCatalog(t, bigTmpfs(t)+"/home", layers.Options{})
	runtime.GC()
	debug.FreeOSMemory()
	must(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	before := residentPeak(t)
	r, w := io.Pipe()
	go func() { w.CloseWithError(manyFiles(w, n)) }()
	start := time.Now()
	s, err := c.Stage(context.Background(), r, layers.StageOptions{})
	must(t, err)
	took := residentPeak(t) - before
	must(t, s.Close())
	entries := int64(n + n/100 + 3)
	allowed := 64<<20 + 200*entries
	t.Logf("%d entries in %v: %d MiB, %d bytes an entry beyond 64 MiB", entries, time.Since(start), took>>20, (took-64<<20)/entries)
	if took > allowed {
		t.Errorf("took %d MiB, more than %d MiB", took>>20, allowed>>20)
	}
}

// bigTmpfs is tmpfs with room for millions of inodes.
func bigTmpfs(t testing.TB) string {
	t.Helper()
	dir := tmpfs(t)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=12g,nr_inodes=0"))
	return dir
}
