package programs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What works on machines with cgroup v1 and no right to raise limits, as CI has.
const containersConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "DIR/tmp/libpod"
`

// A Store is a containers/storage store with private roots, and the settings that keep programs away from the
// machine's own.
type Store struct {
	t       testing.TB
	Driver  string
	Dir     string // everything is below it
	Root    string // graphroot
	RunRoot string
	Options []string // --storage-opt values
	// FsckOnly leaves out of the examination what takes long with big images: checkouts and the copy.
	FsckOnly bool
	env      []string
}

// NewStore makes the roots for a driver in the new directory dir. At the end of the test its containers are removed,
// and what an ostree store holds is examined.
func NewStore(t testing.TB, dir, driver string) *Store {
	t.Helper()
	s := &Store{t: t, Driver: driver, Dir: dir, Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run")}
	for _, d := range []string{s.Root, s.RunRoot, filepath.Join(dir, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "containers.conf")
	s.write(config, strings.ReplaceAll(containersConf, "DIR", dir))
	policy := filepath.Join(dir, "policy.json")
	s.write(policy, `{"default":[{"type":"insecureAcceptAnything"}]}`)
	storage := filepath.Join(dir, "storage.conf")
	s.write(storage, "[storage]\ndriver = \""+driver+"\"\ngraphroot = \""+s.Root+"\"\nrunroot = \""+s.RunRoot+"\"\n")
	s.env = []string{
		"CONTAINERS_CONF=" + config, "CONTAINERS_STORAGE_CONF=" + storage, "TMPDIR=" + filepath.Join(dir, "tmp"),
		"LC_ALL=C", "BUILDAH_ISOLATION=chroot",
	}
	t.Cleanup(s.finish)
	return s
}

func (s *Store) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// Home is the driver's directory.
func (s *Store) Home() string { return filepath.Join(s.Root, s.Driver) }

// Repo is the repository of an ostree store.
func (s *Store) Repo() string { return filepath.Join(s.Root, "ostree", "repo") }

// StorageConf is the path of the store's storage.conf.
func (s *Store) StorageConf() string { return filepath.Join(s.Dir, "storage.conf") }

// Call is a program's call on the store, to be changed further before it is run.
func (s *Store) Call(p Program, args ...string) Call {
	var roots []string
	switch strings.TrimSuffix(p.Name, "-legacy") {
	case "podman", "buildah", "stock podman":
		roots = []string{"--root", s.Root, "--runroot", s.RunRoot, "--storage-driver", s.Driver}
	case "containers-storage":
		roots = []string{"--graph", s.Root, "--run", s.RunRoot, "--storage-driver", s.Driver}
	case "skopeo":
		roots = []string{"--insecure-policy"}
	}
	if p.Name != "skopeo" {
		for _, o := range s.Options {
			roots = append(roots, "--storage-opt", o)
		}
	}
	return Call{Path: p.Path, Args: append(roots, args...), Env: s.env}
}

// Try runs a program on the store.
func (s *Store) Try(p Program, args ...string) Result {
	s.t.Helper()
	return s.Call(p, args...).Exec(s.t)
}

// Run is Try for what must work; it gives the standard output without the last newline.
func (s *Store) Run(p Program, args ...string) string {
	s.t.Helper()
	return s.must(s.Call(p, args...))
}

// RunIn is Run with a working directory.
func (s *Store) RunIn(dir string, p Program, args ...string) string {
	s.t.Helper()
	c := s.Call(p, args...)
	c.Dir = dir
	return s.must(c)
}

func (s *Store) must(c Call) string {
	s.t.Helper()
	r := c.Exec(s.t)
	if r.Code != 0 {
		s.t.Fatal(r)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Container runs a shell command in a new container of an image, which is removed again.
func (s *Store) Container(p Program, image, script string) string {
	s.t.Helper()
	return s.Run(p, "run", "--rm", "--network=none", image, "/bin/sh", "-ec", script)
}

// Fails runs what must not work, and checks that the message says each of the words.
func (s *Store) Fails(p Program, words []string, args ...string) Result {
	s.t.Helper()
	return s.FailsCall(s.Call(p, args...), words)
}

// FailsCall is Fails for a call.
func (s *Store) FailsCall(c Call, words []string) Result {
	s.t.Helper()
	r := c.Exec(s.t)
	if r.Code == 0 {
		s.t.Fatalf("this was to fail:\n%v", r)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr+r.Stdout, w) { // the containers-storage command prints errors on standard output
			s.t.Errorf("the message does not say %q:\n%v", w, r)
		}
	}
	return r
}

// Reference is how skopeo and others name an image of this store.
func (s *Store) Reference(name string) string {
	options := ""
	if len(s.Options) > 0 {
		options = ":" + strings.Join(s.Options, ",")
	}
	return "containers-storage:[" + s.Driver + "@" + s.Root + "+" + s.RunRoot + options + "]" + name
}

// A layerRecord is a layer as containers/storage knows it.
type layerRecord struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	DiffID string `json:"diff-digest"`
}

// Records lists the ids of all layers that containers/storage knows.
func (s *Store) Records() []string {
	s.t.Helper()
	var ids []string
	for _, r := range s.records() {
		ids = append(ids, r.ID)
	}
	return ids
}

// Layers reads containers/storage's own list of the layers that hold an applied diff: ID to DiffID.
func (s *Store) Layers() map[string]string {
	s.t.Helper()
	layers := map[string]string{}
	for _, r := range s.records() {
		if r.DiffID != "" {
			layers[r.ID] = r.DiffID
		}
	}
	return layers
}

func (s *Store) records() []layerRecord {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Root, s.Driver+"-layers", "layers.json"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var records []layerRecord
	if err := json.Unmarshal(text, &records); err != nil {
		s.t.Fatalf("read layers.json: %v", err)
	}
	return records
}
