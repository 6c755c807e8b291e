package layers_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// BenchmarkStage applies the tar that LAYERS_TAR names to a new store and again to the same, beside `tar x` and a sync.
func BenchmarkStage(b *testing.B) {
	path := os.Getenv("LAYERS_TAR")
	if path == "" {
		b.Skip("LAYERS_TAR names no tar of a root")
	}
	data, err := os.ReadFile(path)
	must(b, err)
	base := testfs.Mount(b, "ext4")
	c, err := layers.OpenCatalog(base+"/home", layers.Options{})
	must(b, err)
	defer c.Close()
	total := make(map[string]time.Duration)
	timed := func(what string, f func()) {
		start, busy := time.Now(), cpuTime(b)
		f()
		total[what] += time.Since(start)
		total[what+"-cpu"] += cpuTime(b) - busy
	}
	for i := range b.N {
		timed("tar", func() {
			dir := fmt.Sprintf("%s/tar%d", base, i)
			must(b, os.Mkdir(dir, 0o700))
			cmd := exec.Command("tar", "x", "--xattrs", "--xattrs-include=*", "-C", dir)
			cmd.Stdin = bytes.NewReader(data)
			must(b, cmd.Run())
			syncFS(b, dir)
		})
		for _, what := range []string{"new", "known"} {
			id := fmt.Sprintf("%s%d", what, i)
			timed(what, func() {
				s, err := c.Stage(context.Background(), bytes.NewReader(data), layers.StageOptions{})
				must(b, err)
				_, err = c.Create(id, "", layers.CreateOptions{})
				must(b, err)
				must(b, c.Commit(id, s))
			})
		}
		for _, what := range []string{"new", "known"} {
			timed("remove-"+what, func() {
				cleanup, err := c.Remove(fmt.Sprintf("%s%d", what, i))
				must(b, err)
				must(b, cleanup())
			})
		}
		must(b, os.RemoveAll(fmt.Sprintf("%s/tar%d", base, i)))
		syncFS(b, base)
	}
	for what, d := range total {
		b.ReportMetric(d.Seconds()*1000/float64(b.N), what+"-ms/op")
	}
}

func syncFS(b *testing.B, dir string) {
	d, err := os.Open(dir)
	must(b, err)
	defer d.Close()
	must(b, unix.Syncfs(int(d.Fd())))
}

// cpuTime is what this process and those that it ran have used of the processors.
func cpuTime(b *testing.B) (d time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		must(b, unix.Getrusage(who, &r))
		d += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return d
}

// BenchmarkStageKnown stages a tar whose files are all known, and drops it again.
func BenchmarkStageKnown(b *testing.B) {
	path := os.Getenv("LAYERS_TAR")
	if path == "" {
		b.Skip("LAYERS_TAR names no tar of a root")
	}
	data, err := os.ReadFile(path)
	must(b, err)
	c, err := layers.OpenCatalog(testfs.Mount(b, "ext4")+"/home", layers.Options{})
	must(b, err)
	defer c.Close()
	apply(b, c, "base", "", data)
	b.ResetTimer()
	for b.Loop() {
		s, err := c.Stage(context.Background(), bytes.NewReader(data), layers.StageOptions{})
		must(b, err)
		b.StopTimer()
		must(b, s.Close())
		b.StartTimer()
	}
}

// BenchmarkContainer makes and removes a container's layer over chains of two lengths, and finds the chain.
func BenchmarkContainer(b *testing.B) {
	for _, depth := range []int{5, 400} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			c, err := layers.OpenCatalog(testfs.Mount(b, "ext4")+"/home", layers.Options{})
			must(b, err)
			defer c.Close()
			parent := ""
			for i := range depth {
				id := fmt.Sprintf("%064d", i)
				apply(b, c, id, parent, makeTar(b, file("x", id)))
				parent = id
			}
			b.Run("chain", func(b *testing.B) {
				for b.Loop() {
					_, err := layers.Catalogs{c}.Chain(parent)
					must(b, err)
				}
			})
			b.Run("lowers", func(b *testing.B) {
				chain, err := layers.Catalogs{c}.Chain(parent)
				must(b, err)
				for b.Loop() {
					for _, l := range chain {
						_, err := l.Lowers()
						must(b, err)
					}
				}
			})
			b.Run("create-remove", func(b *testing.B) {
				for b.Loop() {
					_, err := c.Create("container", parent, layers.CreateOptions{ReadWrite: true})
					must(b, err)
					cleanup, err := c.Remove("container")
					must(b, err)
					must(b, cleanup())
				}
			})
		})
	}
}
