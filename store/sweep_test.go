package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestSweepOrder: dirtrees go after the files that they name, also where objects go directory by directory, and both of them after the commit.
func TestSweepOrder(t *testing.T) {
	for _, kind := range []string{"ext4", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, testfs.Mount(t, kind))
			var files []testFile
			for i := range 40 {
				files = append(files, testFile{name: fmt.Sprintf("f%02d", i), body: fmt.Sprint("sweep ", i)})
			}
			must(t, w.apply("many", StageOptions{}, files...))
			d := &faulty{}
			w.on(d)
			must(t, w.reap("many"))
			w.on(kernel{})
			var kinds string // c: commit, f: file or dirmeta, t: dirtree
			var dirs []string
			for _, line := range d.log {
				_, path, _ := strings.Cut(line, "repo/objects/")
				xx, _, _ := strings.Cut(path, "/")
				switch {
				case strings.HasPrefix(line, "rename") && strings.Contains(path, ".commit"):
					kinds += "c"
				case !strings.HasPrefix(line, "remove") || path == "" || strings.Contains(path, ".commit"):
				case strings.HasSuffix(path, ".dirtree"):
					kinds += "t"
				default:
					kinds, dirs = kinds+"f", append(dirs, xx)
				}
			}
			if want := "c" + strings.Repeat("f", len(files)+1) + "t"; kinds != want {
				t.Errorf("removed in the order %s, want %s, of\n%s", kinds, want, strings.Join(d.log, "\n"))
			}
			if kind == "btrfs" && !slices.IsSorted(dirs) {
				t.Errorf("files and dirmetas go from one directory to another: %v", dirs)
			}
		})
	}
}
