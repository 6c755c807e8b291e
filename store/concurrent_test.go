package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// pool are files that many layers share.
func pool(n int) []testFile {
	files := make([]testFile, n)
	for i := range files {
		files[i] = testFile{name: fmt.Sprintf("f%03d", i), body: fmt.Sprint("body ", i%(n*3/4)), sec: int64(i % 3), private: i%11 == 0}
	}
	return files
}

// some picks from the pool, in order.
func some(rnd *rand.Rand, files []testFile) (out []testFile) {
	for _, f := range files {
		if rnd.IntN(3) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// churn applies and removes layers for so many rounds.
func churn(w *world, name string, seed uint64, rounds int) error {
	rnd := rand.New(rand.NewPCG(seed, 7))
	files := pool(60)
	for i := range rounds {
		id := fmt.Sprintf("%s-%d", name, i)
		o := StageOptions{NoSync: rnd.IntN(2) == 0}
		if i > 0 {
			parent := fmt.Sprintf("%s/%s-%d", w.home, name, i-1)
			l, err := OpenInodes(parent+"/inodes", parent+"/tree")
			if err != nil {
				return err
			}
			defer l.Close()
			o.Ancestors = []*Inodes{l}
		}
		if err := w.apply(id, o, some(rnd, files)...); err != nil {
			return fmt.Errorf("apply %s: %w", id, err)
		}
		if i > 1 {
			if err := w.reap(fmt.Sprintf("%s-%d", name, i-2)); err != nil {
				return fmt.Errorf("remove: %w", err)
			}
		}
		if rnd.IntN(8) == 0 {
			if _, err := w.repo.Prune(context.Background(), false); err != nil {
				return fmt.Errorf("prune: %w", err)
			}
		}
	}
	return nil
}

// exact checks that after the last layer is gone nothing is left.
func (w *world) exact(t *testing.T, ids []string) {
	t.Helper()
	w.check("with layers")
	for _, id := range ids {
		must(t, w.reap(id))
	}
	w.check("without layers")
	if objects, lanes := w.count(); objects != 0 || lanes != 0 {
		t.Errorf("%d objects and %d lanes are left when all layers are gone", objects, lanes)
	}
}

// TestB09Churn has goroutines of one process apply and remove layers that share most of their files, with checks between.
func TestB09Churn(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	const workers, rounds = 4, 12
	done := make(chan struct{})
	var wg sync.WaitGroup
	var ids []string
	for i := range workers {
		name := fmt.Sprintf("w%d", i)
		ids = append(ids, fmt.Sprintf("%s-%d", name, rounds-1), fmt.Sprintf("%s-%d", name, rounds-2))
		wg.Go(func() {
			if err := churn(w, name, uint64(i), rounds); err != nil {
				t.Error(err)
			}
		})
	}
	var checker sync.WaitGroup
	checker.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				w.check("while layers come and go")
			}
		}
	})
	wg.Wait()
	close(done)
	checker.Wait()
	w.exact(t, ids)
}

// TestReleaseTogether removes layers that share everything at the same moment: the last one takes it all.
func TestReleaseTogether(t *testing.T) {
	w := newWorld(t, testfs.Mount(t, "ext4"))
	for round := range 25 {
		var wg sync.WaitGroup
		for i := range 3 {
			id := fmt.Sprintf("l%d-%d", round, i)
			must(t, w.apply(id, StageOptions{}, append([]testFile{{name: "0", body: id}}, baseFiles...)...))
		}
		for i := range 3 {
			wg.Go(func() {
				if err := w.reap(fmt.Sprintf("l%d-%d", round, i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if objects, lanes := w.count(); objects != 0 || lanes != 0 {
			t.Fatalf("round %d: %d objects and %d lanes are left", round, objects, lanes)
		}
	}
}

// TestB09Processes does the same with several processes, with ostree prune among them.
func TestB09Processes(t *testing.T) {
	if home := os.Getenv("STORE_TEST_CHURN"); home != "" {
		seed, err := strconv.ParseUint(os.Getenv("STORE_TEST_SEED"), 10, 64)
		must(t, err)
		r, err := Open(home + "/repo")
		must(t, err)
		defer r.Close()
		rounds, err := strconv.Atoi(os.Getenv("STORE_TEST_ROUNDS"))
		must(t, err)
		must(t, churn(&world{t: t, home: home, repo: r}, fmt.Sprintf("p%d", seed), seed, rounds))
		return
	}
	processes(t, newWorld(t, testfs.Mount(t, "ext4")), 0, 3, 10)
}

// processes runs n processes with seeds from seed on, and then looks at what they left.
func processes(t *testing.T, w *world, seed, n, rounds int) {
	t.Helper()
	var wg sync.WaitGroup
	var ids []string
	for i := seed; i < seed+n; i++ {
		ids = append(ids, fmt.Sprintf("p%d-%d", i, rounds-1), fmt.Sprintf("p%d-%d", i, rounds-2))
		wg.Go(func() {
			cmd := churner(w, i, rounds)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", i, err, out)
			}
		})
	}
	ostree, err := exec.LookPath("ostree")
	if err != nil {
		t.Logf("no ostree beside us: %v", err)
		wg.Wait()
		w.exact(t, ids)
		return
	}
	run := func(args ...string) {
		cmd := exec.Command(ostree, append(args, "--repo="+w.home+"/repo")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("ostree %q: %v\n%s", args, err, out)
		}
	}
	wg.Go(func() {
		for range rounds / 2 {
			run("prune", "--refs-only")
		}
	})
	hosts := []string{"layer/host", "host/os"} // a commit beside the layers breaks their seal
	wg.Go(func() {
		dir := t.TempDir()
		for i := range rounds / 2 {
			for j := range 5 { // some of it is what the layers have
				if err := os.WriteFile(fmt.Sprint(dir, "/", j), fmt.Append(nil, "body ", i*j), 0o644); err != nil {
					t.Error(err)
				}
			}
			ref := hosts[i%len(hosts)]
			run("commit", "--branch="+ref, "--owner-uid=0", "--owner-gid=0", "--tree=dir="+dir)
			run("ls", "-R", ref)
		}
	})
	wg.Wait()
	w.check("with commits of libostree")
	run("fsck", "--quiet")
	for _, ref := range hosts {
		run("refs", "--delete", ref)
	}
	_, err = w.repo.Prune(context.Background(), false)
	must(t, err)
	w.exact(t, ids)
}

// churner is a process that runs churn.
func churner(w *world, seed, rounds int) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestB09Processes$")
	cmd.Env = append(os.Environ(), "STORE_TEST_CHURN="+w.home, fmt.Sprintf("STORE_TEST_SEED=%d", seed),
		fmt.Sprintf("STORE_TEST_ROUNDS=%d", rounds))
	return cmd
}

// TestB10Killed kills processes at random, and wants each survivor to find a sound repository.
func TestB10Killed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := newWorld(t, testfs.Mount(t, "ext4"))
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 12 {
		cmd := churner(w, 100+i, 100)
		must(t, cmd.Start())
		time.Sleep(time.Duration(20+rnd.IntN(200)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		w.reopen()
		w.check(fmt.Sprintf("after kill %d", i))
	}
	refs, err := w.repo.Refs("layer")
	must(t, err)
	for ref := range refs {
		id := ref[len("layer/"):]
		if err := w.reap(id); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		must(t, w.repo.DeleteRef(ref))
	}
	entries, err := os.ReadDir(w.home)
	must(t, err)
	for _, e := range entries { // trees that were not named yet
		if e.Name() != "repo" {
			must(t, os.RemoveAll(w.home+"/"+e.Name()))
		}
	}
	_, err = w.repo.Prune(context.Background(), false)
	must(t, err)
	w.exact(t, nil)
}
