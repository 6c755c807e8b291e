package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A corpus is a made-up layer in the shape of a Debian one: 30 files a directory, 13 KiB a file.
const (
	corpusFiles = 30_000
	corpusDir   = 30
)

type corpus struct{ bodies [][]byte }

func newCorpus(seed uint64) *corpus {
	r := rand.New(rand.NewPCG(seed, 1))
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(r.Uint32())
	}
	c := &corpus{}
	for i := range corpusFiles {
		size := 200 + int(r.ExpFloat64()*13_000)
		at := r.IntN(len(block) - min(size, len(block)/2))
		b := append(fmt.Appendf(nil, "%d %d\n", seed, i), block[at:min(at+size, len(block))]...)
		c.bodies = append(c.bodies, b)
	}
	return c
}

// ingest puts the corpus into a stage with two workers and publishes it. It returns the times of both parts.
func (c *corpus) ingest(t testing.TB, r *store.Repo, ref, dir string) (put, publish time.Duration) {
	t.Helper()
	s, err := r.NewStage(store.StageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begin := time.Now()
	if err := os.Mkdir(s.Path()+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	n := corpusFiles / corpusDir
	dirs, files, trees := make([]int, n), make([]store.Placed, corpusFiles), make([]object.TreeDir, n)
	meta, err := s.PutDirMeta(&object.DirMeta{Mode: unix.S_IFDIR | 0o755})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for d := w; d < n; d += 2 {
				path := fmt.Sprintf("%s/tree/d%04d", s.Path(), d)
				if err := os.Mkdir(path, 0o755); err != nil {
					t.Error(err)
					return
				}
				dirs[d], _ = unix.Open(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				var list object.DirTree
				for i := d * corpusDir; i < (d+1)*corpusDir; i++ {
					f := regular(0o644, int64(1_700_000_000+i))
					name := fmt.Sprintf("f%05d", i)
					p, err := s.PutFile(dirs[d], name, f, c.bodies[i])
					if err != nil {
						t.Error(err)
						return
					}
					files[i] = p
					list.Files = append(list.Files, object.TreeFile{Name: name, Checksum: p.Checksum})
				}
				sum, err := s.PutDirTree(&list)
				if err != nil {
					t.Error(err)
				}
				trees[d] = object.TreeDir{Name: fmt.Sprintf("d%04d", d), Tree: sum, Meta: meta}
			}
		})
	}
	wg.Wait()
	top, err := s.PutDirTree(&object.DirTree{Dirs: trees})
	if err != nil {
		t.Fatal(err)
	}
	commit, err := s.PutCommit(&object.Commit{Tree: top, Meta: meta})
	if err != nil {
		t.Fatal(err)
	}
	put = time.Since(begin)
	begin = time.Now()
	err = s.Publish(context.Background(), ref, commit, func(link func(int, string, store.Placed) error) error {
		for i, p := range files {
			if err := link(dirs[i/corpusDir], fmt.Sprintf("f%05d", i), p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	publish = time.Since(begin)
	for _, fd := range dirs {
		unix.Close(fd)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tree, err := os.Open(s.Path() + "/tree")
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := s.WriteInodes(dir+"/inodes", tree); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.Path()+"/tree", dir+"/tree"); err != nil {
		t.Fatal(err)
	}
	return put, publish
}

// BenchmarkIngest puts 30,000 files, new and then known, on each filesystem, beside cp -al of the result.
func BenchmarkIngest(b *testing.B) {
	for _, kind := range testfs.Kinds {
		b.Run(kind, func(b *testing.B) {
			home := testfs.Mount(b, kind)
			r, err := store.Init(home+"/repo", store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			b.ResetTimer()
			for i := range b.N {
				c := newCorpus(uint64(i + 1))
				round := func(what, id string) {
					put, publish := c.ingest(b, r, "layer/"+id, home+"/"+id)
					b.ReportMetric(corpusFiles/put.Seconds(), what+"-put-files/s")
					b.ReportMetric(float64(publish.Milliseconds()), what+"-publish-ms")
				}
				id := fmt.Sprintf("l%d", i)
				round("new", id+"a")
				time.Sleep(100 * time.Millisecond)
				round("known", id+"b")
				begin := time.Now()
				if out, err := exec.Command("cp", "-al", home+"/"+id+"a/tree", home+"/"+id+"c").CombinedOutput(); err != nil {
					b.Fatalf("cp: %v %s", err, out)
				}
				b.ReportMetric(corpusFiles/time.Since(begin).Seconds(), "cp-al-files/s")
				begin = time.Now()
				home, err := os.Open(home)
				if err != nil {
					b.Fatal(err)
				}
				for _, x := range []string{"a", "b"} {
					trash, err := r.MoveToTrash(home, id+x, "layer/"+id+x)
					if err != nil {
						b.Fatal(err)
					}
					if err := trash.Remove(); err != nil {
						b.Fatal(err)
					}
				}
				home.Close()
				b.ReportMetric(2*corpusFiles/time.Since(begin).Seconds(), "remove-files/s")
			}
		})
	}
}
