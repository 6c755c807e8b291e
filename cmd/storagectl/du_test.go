package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// rounding is by how much du may differ from df for each layer that goes, as its help says.
const rounding = 64 << 10

// TestDuFreesWhatDfSays removes single images and sets, and compares df with what du had said.
func TestDuFreesWhatDfSays(t *testing.T) {
	fs := testfs.Mount(t, "ext4")
	isolate(t)
	random := rand.New(rand.NewPCG(1, 2))
	dirs := map[string]string{}
	for _, name := range []string{"base", "one", "two", "three", "four"} {
		dirs[name] = t.TempDir()
		fill(t, random, dirs[name], name)
	}
	// What two layers share goes with the second.
	copyFile(t, filepath.Join(dirs["one"], "usr/one-1"), filepath.Join(dirs["two"], "usr/other/same"))
	copyFile(t, filepath.Join(dirs["one"], "usr/one-2"), filepath.Join(dirs["one"], "usr/twice"))
	flags := []string{"--root", fs + "/root", "--runroot", fs + "/run", "--storage-opt", "pinned_store=none"}
	images := map[string][]string{"a": {"base", "one"}, "b": {"base", "two"}, "c": {"three"}, "d": {"base", "four"}}
	for _, set := range [][]string{{"a"}, {"a", "b"}, {"c"}, {"a", "b", "c", "d"}} {
		s := openTest(t, fs)
		for name, layers := range images {
			var list []string
			for _, l := range layers {
				list = append(list, dirs[l])
			}
			putImage(s, "localhost/"+name+":latest", list)
		}
		closeTest(t, s)
		time.Sleep(100 * time.Millisecond) // what is younger is not kept
		args := append(flags, append([]string{"du", "--format", "json"}, set...)...)
		said, again := du(t, args), du(t, args)
		if !reflect.DeepEqual(said, again) {
			t.Errorf("%v: du says %+v, and %+v when it has a ledger", set, said, again)
		}
		if lanes := laneBlocks(t, fs); said.Lanes.Bytes != lanes || lanes == 0 {
			t.Errorf("%v: du says that lanes take %d bytes, they have %d bytes of blocks", set, said.Lanes.Bytes, lanes)
		}
		before := free(t, fs)
		s = openTest(t, fs)
		for _, name := range set {
			id, err := s.Lookup("localhost/" + name + ":latest")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.DeleteImage(id, true); err != nil {
				t.Fatal(err)
			}
		}
		closeTest(t, s)
		got := free(t, fs) - before
		diff := got - said.Frees.Total
		t.Logf("%v: du said %d, df says %d, difference %d for %d layers", set, said.Frees.Total, got, diff, said.Frees.Layers)
		if limit := int64(rounding * max(said.Frees.Layers, 1)); diff > limit || diff < -limit {
			t.Errorf("%v: df says %d bytes, du said %d (%+v)", set, got, said.Frees.Total, said.Frees)
		}
	}
}

// TestUnpinFreesWhatDuSaid ends pins and compares df with what du had said: of an image that shares layers with another pinned one, of the
// last one, while the images are in the store too, and when the pinned store alone is left.
func TestUnpinFreesWhatDuSaid(t *testing.T) {
	fs := testfs.Mount(t, "ext4")
	isolate(t)
	random := rand.New(rand.NewPCG(3, 4))
	dirs := map[string]string{}
	for _, name := range []string{"base", "one", "two"} {
		dirs[name] = t.TempDir()
		fill(t, random, dirs[name], name)
	}
	copyFile(t, filepath.Join(dirs["one"], "usr/one-2"), filepath.Join(dirs["one"], "usr/twice"))
	flags := []string{"--root", fs + "/root", "--runroot", fs + "/run", "--storage-opt", "pinned_store=" + fs + "/pinned"}
	for _, alone := range []bool{false, true} {
		s := openTest(t, fs)
		putImage(s, "localhost/a:latest", []string{dirs["base"], dirs["one"]})
		putImage(s, "localhost/b:latest", []string{dirs["base"], dirs["two"]})
		closeTest(t, s)
		for _, name := range []string{"a", "b"} {
			program(t, append(flags, "pin", name, "--name", name)...)
		}
		if alone {
			if err := errors.Join(os.RemoveAll(fs+"/root"), os.RemoveAll(fs+"/run")); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "b"} {
			var said duAnswer
			if err := json.Unmarshal(program(t, append(flags, "du", "--format", "json", name)...), &said); err != nil {
				t.Fatal(err)
			}
			before := free(t, fs)
			program(t, append(flags, "unpin", name)...)
			got := free(t, fs) - before
			t.Logf("alone %t, %s: du said %d, df says %d, for %d layers", alone, name, said.Unpin.Total, got, said.Unpin.Layers)
			want := 1 // the second takes the layer that both share
			if name == "b" {
				want = 2
			}
			if said.Unpin.Layers != want || said.Unpin.Total == 0 || (said.Unpin.Data > 0) != alone {
				t.Errorf("du said %+v", said.Unpin)
			}
			if diff, limit := got-said.Unpin.Total, int64(rounding*want); diff > limit || diff < -limit {
				t.Errorf("alone %t, %s: df says %d bytes, du said %d (%+v)", alone, name, got, said.Unpin.Total, said.Unpin)
			}
		}
	}
}

// program runs the program in a process of its own, which has to work, and returns what it prints.
func program(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Cmd{Path: path, Args: append([]string{"storagectl"}, args...), Env: append(os.Environ(), "HOME="+t.TempDir()), Stderr: &bytes.Buffer{}}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("storagectl %v: %v: %s", args, err, c.Stderr)
	}
	return out
}

func isolate(t *testing.T) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \"ostree\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	t.Setenv("STORAGE_OPTS", "")
}

func openTest(t *testing.T, fs string) storage.Store {
	t.Helper()
	s, err := storage.GetStore(storage.StoreOptions{
		GraphRoot: fs + "/root", RunRoot: fs + "/run", GraphDriverName: driverName, GraphDriverOptions: []string{"pinned_store=none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeTest(t *testing.T, s storage.Store) {
	t.Helper()
	if _, err := s.Shutdown(false); err != nil {
		t.Fatal(err)
	}
}

func du(t *testing.T, args []string) duAnswer {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(args, &out, &errOut); code != 0 {
		t.Fatalf("du: exit code %d: %s", code, errOut.String())
	}
	var v duAnswer
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// free is what df says, when all is on disk.
func free(t *testing.T, fs string) int64 {
	t.Helper()
	d, err := os.Open(fs)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(fs, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// laneBlocks is what stat says of all lanes.
func laneBlocks(t *testing.T, root string) int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "root/ostree/repo/extensions/ostree-storage/lanes/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			t.Fatal(err)
		}
		sum += st.Blocks * 512
	}
	return sum
}

// fill makes files of many sizes, some of them under etc.
func fill(t *testing.T, random *rand.Rand, dir, name string) {
	t.Helper()
	for i := range 300 {
		sub := []string{"usr", "usr/lib", "etc", "var/lib"}[i%4]
		b := make([]byte, random.IntN(40_000))
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		writeFile(t, filepath.Join(dir, sub, fmt.Sprintf("%s-%d", name, i)), b)
	}
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		b = []byte("the same in both, and longer than a block would be if blocks were short")
		writeFile(t, from, b)
	}
	writeFile(t, to, b)
}
