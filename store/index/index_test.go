package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// plain is a Disk that does as it is told.
type plain struct{}

func (plain) Create(dir int, name string, perm uint32) (int, error) {
	return unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, perm)
}
func (plain) Mkdir(dir int, name string) error { return unix.Mkdirat(dir, name, 0o700) }
func (plain) Link(fromDir int, from string, toDir int, to string) error {
	return unix.Linkat(fromDir, from, toDir, to, 0)
}
func (plain) Rename(fromDir int, from string, toDir int, to string) error {
	return unix.Renameat(fromDir, from, toDir, to)
}
func (plain) Remove(dir int, name string) error { return unix.Unlinkat(dir, name, 0) }
func (plain) Sync(fd int) error                 { return unix.Fdatasync(fd) }

// A model is what the index ought to say: the keys of each commit.
type model struct {
	t       *testing.T
	x       *Index
	stage   *os.File
	commits map[object.Checksum][]Key
}

func newModel(t *testing.T) *model {
	dir := t.TempDir()
	x, err := Open(filepath.Join(dir, "index"), plain{})
	if err != nil {
		t.Fatal(err)
	}
	stage, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close(); stage.Close() })
	return &model{t, x, stage, map[object.Checksum][]Key{}}
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// keysOf makes a commit's keys from its number: few enough in all that commits share many.
func keysOf(number uint64) (object.Checksum, []Key) {
	r := rand.New(rand.NewPCG(number, 7))
	var c object.Checksum
	binary.BigEndian.PutUint64(c[:], r.Uint64())
	keys := make([]Key, r.IntN(60))
	for i := range keys {
		keys[i] = Key(r.Uint64N(200) << 50)
	}
	return c, keys
}

func (m *model) add(number uint64) {
	c, keys := keysOf(number)
	m.must(os.WriteFile(filepath.Join(m.stage.Name(), "list"), AppendList(nil, slices.Clone(keys)), 0o600))
	m.must(m.x.Add(c, m.stage, "list"))
	m.must(os.Remove(filepath.Join(m.stage.Name(), "list")))
	slices.Sort(keys)
	m.commits[c] = slices.Compact(keys)
}

func (m *model) drop(number uint64) {
	c, _ := keysOf(number)
	m.must(m.x.Forget(c))
	delete(m.commits, c)
}

func (m *model) check() {
	m.t.Helper()
	var all []Key
	want := map[Key]int32{}
	for i := range uint64(200) {
		all = append(all, Key(i<<50))
	}
	for _, keys := range m.commits {
		for _, k := range keys {
			want[k]++
		}
	}
	got, err := m.x.Count(all)
	m.must(err)
	for i, k := range all {
		if got[i] != want[k] {
			m.t.Fatalf("count of %x is %d, want %d", k, got[i], want[k])
		}
	}
	commits, err := m.x.Commits()
	m.must(err)
	if len(commits) != len(m.commits) {
		m.t.Fatalf("%d commits, want %d", len(commits), len(m.commits))
	}
	for c, keys := range m.commits {
		got, err := m.x.Keys(c)
		m.must(err)
		if !slices.Equal(got, keys) {
			m.t.Fatalf("keys of %s are %x, want %x", c, got, keys)
		}
	}
}

func TestIndexAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t)
			r := rand.New(rand.NewPCG(seed, 1))
			for range 150 {
				switch n := r.IntN(20); {
				case n < 9:
					m.add(r.Uint64N(60))
				case n < 18:
					m.drop(r.Uint64N(60))
				default:
					m.compact(r.IntN(3))
				}
				m.check()
			}
		})
	}
}

// compact compacts, and in some of its ways stops where a crash could.
func (m *model) compact(way int) {
	m.must(m.x.Settle())
	c, err := m.x.Compact(true)
	m.must(err)
	if c == nil {
		return
	}
	if way != 1 {
		m.must(c.Commit())
		return
	}
	// The manifest is in place, but nothing was moved yet: every count must be right all the same.
	m.must(m.x.place(c.begun))
	m.check()
}

func TestCompactionGivesWayToForget(t *testing.T) {
	m := newModel(t)
	m.add(1)
	m.add(2)
	c, err := m.x.Compact(true)
	m.must(err)
	m.drop(1)
	m.must(c.Commit())
	m.check()
	m.compact(0)
	m.check()
	if c, err := m.x.Compact(false); c != nil || err != nil {
		t.Fatalf("Compact of an index with nothing to do: %v, %v", c, err)
	}
}

// TestTwoCompactions: two processes compact at once, the second with more to take in. One of them wins, whole.
func TestTwoCompactions(t *testing.T) {
	m := newModel(t)
	m.add(1)
	first, err := m.x.Compact(true)
	m.must(err)
	m.add(2)
	other, err := Open(filepath.Join(m.stage.Name(), "index"), plain{})
	m.must(err)
	defer other.Close()
	second, err := other.Compact(true)
	m.must(err)
	m.must(second.Commit())
	m.check()
	m.must(first.Commit())
	m.check()
	runs, err := m.x.names("runs")
	m.must(err)
	if len(runs) != 1 {
		t.Errorf("runs %q are left, want one", runs)
	}
}

func TestDamagedFiles(t *testing.T) {
	m := newModel(t)
	m.add(3)
	c, _ := keysOf(3)
	path := filepath.Join(m.stage.Name(), "index", "new", c.String())
	whole, err := os.ReadFile(path)
	m.must(err)
	for name, b := range map[string][]byte{
		"empty":     {},
		"truncated": whole[:len(whole)-1],
		"magic":     append([]byte("x"), whole[1:]...),
		"count":     append(append([]byte(listMagic), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), whole[16:]...),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			var damage *DamagedError
			if _, err := m.x.Count([]Key{1}); !errors.As(err, &damage) {
				t.Fatalf("Count on a damaged list: %v", err)
			}
		})
	}
	if _, err := m.x.Keys(object.Checksum{9}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Keys of an unknown commit: %v", err)
	}
}

func BenchmarkCount(b *testing.B) {
	dir := b.TempDir()
	x, err := Open(filepath.Join(dir, "index"), plain{})
	if err != nil {
		b.Fatal(err)
	}
	stage, _ := os.Open(dir)
	r := rand.New(rand.NewPCG(1, 1))
	random := func(n int) []Key {
		keys := make([]Key, n)
		for i := range keys {
			keys[i] = Key(r.Uint64())
		}
		return keys
	}
	for range 300 {
		var c object.Checksum
		binary.BigEndian.PutUint64(c[:], r.Uint64())
		os.WriteFile(filepath.Join(dir, "list"), AppendList(nil, random(33000)), 0o600)
		if err := x.Add(c, stage, "list"); err != nil {
			b.Fatal(err)
		}
		os.Remove(filepath.Join(dir, "list"))
		if c, err := x.Compact(false); err != nil {
			b.Fatal(err)
		} else if c != nil {
			if err := c.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	keys := random(33000)
	slices.Sort(keys)
	for b.Loop() {
		if _, err := x.Count(keys); err != nil {
			b.Fatal(err)
		}
	}
}
