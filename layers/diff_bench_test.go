package layers_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"go.podman.io/storage/pkg/archive"

	"github.com/ostree-storage/ostree-storage/layers"
)

// benchUpper makes an upper directory like that of a package installation: many small files, some with attributes, a few large ones.
func benchUpper(b *testing.B, files int) (upper string, lowers []string) {
	b.Helper()
	base := tmpfs(b)
	upper = base + "/upper"
	for i := range files {
		dir := fmt.Sprintf("%s/usr/lib/d%d/d%d", upper, i%20, i%200)
		must(b, os.MkdirAll(dir, 0o755))
		size := 100 + i*7919%20000
		if i%1000 == 0 {
			size = 8 << 20
		}
		must(b, os.WriteFile(fmt.Sprintf("%s/file%d", dir, i), make([]byte, size), 0o644))
	}
	for i := range 10 {
		lower := fmt.Sprintf("%s/lower%d", base, i)
		for j := range 50 {
			must(b, os.MkdirAll(fmt.Sprintf("%s/usr/lib/d%d/d%d", lower, j%20, j), 0o755))
		}
		lowers = append(lowers, lower)
	}
	return upper, lowers
}

// BenchmarkDiff writes the tar of an upper directory through a pipe, as the store reads it; upstream does so by itself.
func BenchmarkDiff(b *testing.B) {
	upper, lowers := benchUpper(b, 20000)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			r, w := io.Pipe()
			go func() {
				w.CloseWithError(layers.WriteDiff(context.Background(), w, layers.DiffOptions{Upper: upper, Lowers: lowers}))
			}()
			benchRead(b, r, nil)
		}
	})
	b.Run("upstream", func(b *testing.B) {
		for b.Loop() {
			r, err := archive.TarWithOptions(upper, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat, WhiteoutData: lowers})
			benchRead(b, r, err)
		}
	})
}

func benchRead(b *testing.B, r io.ReadCloser, err error) {
	b.Helper()
	must(b, err)
	n, err := io.Copy(io.Discard, r)
	must(b, err)
	must(b, r.Close())
	b.SetBytes(n)
}

// BenchmarkChanges lists the changes of the same directory.
func BenchmarkChanges(b *testing.B) {
	upper, lowers := benchUpper(b, 5000)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			_, err := layers.Changes(upper, lowers, layers.ChangesOptions{})
			must(b, err)
		}
	})
	b.Run("upstream", func(b *testing.B) {
		for b.Loop() {
			_, err := archive.OverlayChanges(lowers, upper)
			must(b, err)
		}
	})
}
