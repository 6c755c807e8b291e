package store

import (
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestWatch counts every change of a directory, by whatever call and thread, and notices if the kernel could not tell.
func TestWatch(t *testing.T) {
	for _, kind := range testfs.Kinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, testfs.Mount(t, kind))
			must(t, w.apply("base", StageOptions{}, baseFiles...))
			dir, other := w.repo.Path()+"/"+layerRefsDir, w.home
			begin := func() *watch {
				x := w.repo.root.watchDir(layerRefsDir)
				if x == nil {
					t.Fatal("no watch")
				}
				return x
			}
			for _, c := range []struct {
				what   string
				want   int
				change func() error
			}{
				{"nothing", 0, func() error { return nil }},
				{"a time", 0, func() error { return os.Chtimes(dir, time.Unix(1, 0), time.Unix(1, 0)) }},
				{"a file", 1, func() error { return os.WriteFile(dir+"/a", nil, 0o644) }},
				{"a link", 1, func() error { return os.Link(dir+"/a", dir+"/b") }},
				{"a link to another directory", 0, func() error { return os.Link(dir+"/a", other+"/b") }},
				{"a name within", 2, func() error { return os.Rename(dir+"/b", dir+"/c") }},
				{"a name from elsewhere", 1, func() error { return os.Rename(other+"/b", dir+"/d") }},
				{"a replacement", 1, func() error {
					must(t, os.WriteFile(other+"/e", nil, 0o644))
					return os.Rename(other+"/e", dir+"/a")
				}},
				{"a name that goes elsewhere", 1, func() error { return os.Rename(dir+"/d", other+"/d") }},
				{"a symlink", 1, func() error { return os.Symlink("c", dir+"/s") }},
				{"a directory", 1, func() error { return os.Mkdir(dir+"/sub", 0o755) }},
				{"a file in it", 0, func() error { return os.WriteFile(dir+"/sub/f", nil, 0o644) }},
				{"all gone", 5, func() error {
					must(t, os.RemoveAll(dir+"/sub"))
					for _, name := range []string{"a", "c", "s", "base"} {
						must(t, os.Remove(dir+"/"+name))
					}
					return nil
				}},
			} {
				x := begin()
				var done sync.WaitGroup
				done.Go(func() { must(t, c.change()) })
				done.Wait()
				if n := x.changes(); n != c.want {
					t.Errorf("%s: %d changes were seen, want %d", c.what, n, c.want)
				}
				x.end()
			}
			x := begin()
			defer x.end()
			noQueue(t, func() { must(t, os.WriteFile(dir+"/lost", nil, 0o644)) })
			must(t, os.WriteFile(dir+"/told", nil, 0o644))
			if n := x.changes(); n != -1 {
				t.Errorf("%d changes were seen where the signal of one was lost", n)
			}
		})
	}
}

// noQueue runs f while this process may have no signals queued.
func noQueue(t *testing.T, f func()) {
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_SIGPENDING, &before))
	must(t, unix.Setrlimit(unix.RLIMIT_SIGPENDING, &unix.Rlimit{Max: before.Max}))
	f()
	must(t, unix.Setrlimit(unix.RLIMIT_SIGPENDING, &before))
}
