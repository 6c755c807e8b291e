package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// TestFlights: a stage links the new files of another one of this process, and does not need it afterwards.
func TestFlights(t *testing.T) {
	testfs.Each(t, func(t *testing.T, home string) {
		r := storetest.At(t, home+"/repo", store.Options{})
		large := slices.Repeat([]byte("0123456789abcdef"), 1<<16)
		fill := func(l *layer) {
			l.put("a", regular(0o644, 1000), "hello")
			l.put("b", regular(0o644, 1000), "hello")
			l.put("c", regular(0o644, 1001), "hello")
			l.put("d", regular(0o600, 1000), "hello")
			l.stream("e", regular(0o755, 1000), large)
			l.put("f", regular(0o644, 1000), "")
		}
		one, two := stage(t, r, store.StageOptions{}), stage(t, r, store.StageOptions{})
		fill(one)
		fill(two)
		for i, f := range one.files {
			shared := f.p.Ino == two.files[i].p.Ino
			if want := f.name != "f"; shared != want { // empty files are each tree's own
				t.Errorf("%s: one inode for both: %t", f.name, shared)
			}
			if f.p.Lane != two.files[i].p.Lane || f.p.Checksum != two.files[i].p.Checksum {
				t.Errorf("%s: %+v and %+v", f.name, f.p, two.files[i].p)
			}
		}
		if err := one.stage.Close(); err != nil {
			t.Fatal(err)
		}
		two.publish("layer/two", home+"/two")
		three := stage(t, r, store.StageOptions{})
		fill(three)
		three.publish("layer/three", home+"/three")
		for i, f := range three.files {
			if f.name != "f" && f.p.Ino != two.files[i].p.Ino {
				t.Errorf("%s: not the object's inode", f.name)
			}
		}
	})
}

// TestFlightsAtOnce fills stages at the same time: each file is made once, also where several want it in the same moment.
func TestFlightsAtOnce(t *testing.T) {
	const stages, files = 4, 200
	home := testfs.Mount(t, "ext4")
	r := storetest.At(t, home+"/repo", store.Options{})
	var all []*layer
	for range stages {
		all = append(all, stage(t, r, store.StageOptions{}))
	}
	var mu sync.Mutex
	inodes := map[uint64]int{}
	var g errgroup.Group
	for _, l := range all {
		l.files = make([]placedFile, files)
		for part := range 2 {
			g.Go(func() error {
				for i := part; i < files; i += 2 {
					name := fmt.Sprintf("%03d", i)
					p, err := l.stage.PutFile(int(l.tree.Fd()), name, regular(0o644, int64(i)), []byte("file "+name))
					if err != nil {
						return err
					}
					l.files[i] = placedFile{name, p}
					mu.Lock()
					inodes[p.Ino]++
					mu.Unlock()
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(inodes) != files {
		t.Errorf("%d inodes for %d files", len(inodes), files)
	}
	for i, l := range all {
		list := l.files
		l.files = nil
		for _, f := range list {
			l.add(f.name, f.p)
		}
		c := l.commit()
		g.Go(func() error { return l.stage.Publish(context.Background(), fmt.Sprintf("layer/%d", i), c, l.links) })
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestFlightsThatFail: whoever waits for a file that could not be made makes it.
func TestFlightsThatFail(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	r := storetest.At(t, home+"/repo", store.Options{})
	one, two := stage(t, r, store.StageOptions{}), stage(t, r, store.StageOptions{})
	one.put("a", regular(0o644, 1000), "another")
	if _, err := one.stage.PutFile(int(one.tree.Fd()), "a", regular(0o644, 1000), []byte("hello")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the name is taken: %v", err)
	}
	two.put("b", regular(0o644, 1000), "hello")
	if one.put("b", regular(0o644, 1000), "hello").Ino == 0 {
		t.Error("no inode")
	}
	two.publish("layer/two", home+"/two")
	one.publish("layer/one", home+"/one")
}

// TestNoFlightsUnsynced: with NoSync each stage notes the files that it wrote, so it writes its own.
func TestNoFlightsUnsynced(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	r := storetest.At(t, home+"/repo", store.Options{})
	o := store.StageOptions{NoSync: true}
	one, two := stage(t, r, o), stage(t, r, o)
	if one.put("a", regular(0o644, 1000), "hello").Ino == two.put("a", regular(0o644, 1000), "hello").Ino {
		t.Error("an inode that only the other stage notes")
	}
}

// processes opens a repository twice, each time with memory of its own as two processes have it, and makes a stage in both that meet in
// a directory.
func processes(t *testing.T, home, meet string) (one, two *layer) {
	a, b := storetest.At(t, home+"/repo", store.Options{}), storetest.At(t, home+"/repo", store.Options{})
	o := store.StageOptions{Meet: meet}
	return stage(t, a, o), stage(t, b, o)
}

// TestFlightsOfProcesses: a process links the new files of another one, and those who are through leave no memory behind.
func TestFlightsOfProcesses(t *testing.T) {
	meet := testfs.Memory(t)
	testfs.Each(t, func(t *testing.T, home string) {
		for round := range 2 { // the second time the file is there
			one, two := processes(t, home, meet+"/run")
			for _, l := range []*layer{one, two} {
				for i := range 300 {
					l.put(fmt.Sprintf("%03d", i), regular(0o644, int64(i)), fmt.Sprint("file ", i, " of round ", round))
				}
				l.stream("large", regular(0o755, 1000), slices.Repeat([]byte{'0' + byte(round)}, 1<<20))
			}
			for i, f := range one.files {
				if f.p.Ino != two.files[i].p.Ino {
					t.Fatalf("%s: an inode for each", f.name)
				}
			}
			if err := one.stage.Close(); err != nil {
				t.Fatal(err)
			}
			two.publish("layer/"+fmt.Sprint(round), home+"/"+fmt.Sprint(round))
			if err := two.stage.Close(); err != nil {
				t.Fatal(err)
			}
			tables, err := os.ReadDir(meet + "/run")
			if err != nil || len(tables) == 0 {
				t.Fatalf("%d tables, %v", len(tables), err)
			}
			for _, f := range tables {
				if st, err := f.Info(); err != nil || st.Size() != 0 {
					t.Errorf("%s has %d bytes, %v", f.Name(), st.Size(), err)
				}
			}
		}
	})
}

// TestFlightsOfProcessesAtOnce: whatever two processes make of the same files in the same moment is sound.
func TestFlightsOfProcessesAtOnce(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	one, two := processes(t, home, testfs.Memory(t))
	var g errgroup.Group
	for i, l := range []*layer{one, two} {
		g.Go(func() error {
			for n := range 500 {
				l.put(fmt.Sprintf("%03d", n), regular(0o644, int64(n)), fmt.Sprint("file ", n))
			}
			l.publish(fmt.Sprint("layer/", i), fmt.Sprint(home, "/", i))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestFlightsOnDisk: processes do not meet where each write would reach a disk, nor where there is no directory to meet in.
func TestFlightsOnDisk(t *testing.T) {
	home := testfs.Mount(t, "ext4")
	for _, meet := range []string{home + "/run", "", "/proc/self/stat"} {
		one, two := processes(t, home, meet)
		if one.put("a", regular(0o644, 1000), meet).Ino == two.put("a", regular(0o644, 1000), meet).Ino {
			t.Errorf("%q: one inode", meet)
		}
	}
	if list, err := os.ReadDir(home + "/run"); err != nil || len(list) > 0 {
		t.Errorf("%d files are left, %v", len(list), err)
	}
}
