package overlay_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"golang.org/x/sys/unix"
)

// onTmpfs makes layers on a filesystem where syncing costs nothing.
func onTmpfs(b *testing.B, lowers int) *overlay.Mount {
	b.Helper()
	needRoot(b)
	dir := b.TempDir()
	tmpfs(b, dir)
	return layers(b, dir, lowers)
}

func measure(b *testing.B, target string, mount func() error) {
	b.Helper()
	for b.Loop() {
		if err := mount(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := overlay.Unmount(target); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkMount compares every way with mount(2) and a ready string, which cannot hold 500 absolute paths.
func BenchmarkMount(b *testing.B) {
	for _, n := range []int{1, 10, 50, 500} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			m := onTmpfs(b, n)
			b.Run("string", func(b *testing.B) {
				names := make([]string, n)
				for i := range names {
					names[i] = filepath.Base(m.Lowers[i])
				}
				b.Chdir(filepath.Dir(m.Upper))
				data := "lowerdir=" + strings.Join(names, ":") + ",upperdir=upper,workdir=work,index=off,redirect_dir=off,metacopy=off"
				if len(data) >= 4096 {
					b.Skip("does not fit in a page")
				}
				measure(b, m.Target, func() error { return unix.Mount("overlay", m.Target, "overlay", 0, data) })
			})
			for name, w := range overlay.Ways {
				b.Run(name, func(b *testing.B) { measure(b, m.Target, func() error { return m.DoBy(w) }) })
			}
			mapped := *m
			mapped.IDMap = maps()[0]
			b.Run("mapped", func(b *testing.B) { measure(b, m.Target, mapped.Do) })
		})
	}
}

func BenchmarkMounted(b *testing.B) {
	m := onTmpfs(b, 1)
	if err := m.Do(); err != nil {
		b.Fatal(err)
	}
	defer overlay.Unmount(m.Target)
	for b.Loop() {
		if ok, err := overlay.Mounted(m.Target); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkUserNamespace(b *testing.B) {
	needRoot(b)
	for b.Loop() {
		fd, err := overlay.NewUserNamespace(maps()[0])
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}

func BenchmarkProbe(b *testing.B) {
	m := onTmpfs(b, 0)
	for b.Loop() {
		if _, err := overlay.Probe(m.Empty); err != nil {
			b.Fatal(err)
		}
	}
}
