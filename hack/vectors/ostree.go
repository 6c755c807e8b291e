package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// ostree runs the real program and returns what it printed.
func ostree(args ...string) (string, error) {
	cmd := exec.Command("ostree", args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ostree %s: %w: %s", args[0], err, complaint.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// version returns the program and its version, "ostree 2022.7".
func version() string {
	out, err := ostree("--version")
	if err != nil {
		return "ostree, which is not installed"
	}
	for line := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Version: "); ok {
			return "ostree " + strings.Trim(v, "'")
		}
	}
	return "ostree of unknown version"
}

// A repo is a repository that only ostree writes to.
type repo string

func newRepo(path string) (repo, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	_, err := ostree("init", "--repo="+path, "--mode=bare")
	return repo(path), err
}

// commit commits the directory and returns the commit.
func (r repo) commit(dir string, args ...string) (object.Checksum, error) {
	args = append([]string{"commit", "--repo=" + string(r), "--orphan", "--fsync=0", "--tree=dir=" + dir}, args...)
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--bind-ref") }) {
		args = append(args, "--no-bindings") // or there is an empty list of them
	}
	out, err := ostree(args...)
	if err != nil {
		return object.Checksum{}, err
	}
	return object.ParseChecksum(out)
}

func (r repo) read(n object.Name) ([]byte, error) {
	return os.ReadFile(string(r) + "/objects/" + n.LoosePath())
}

// has reports whether ostree made an object of this name.
func (r repo) has(n object.Name) bool {
	_, err := os.Lstat(string(r) + "/objects/" + n.LoosePath())
	return err == nil
}

// count returns how many objects the repository has.
func (r repo) count() (n int, err error) {
	buckets, err := os.ReadDir(string(r) + "/objects")
	for _, b := range buckets {
		list, err := os.ReadDir(string(r) + "/objects/" + b.Name())
		if err != nil {
			return 0, err
		}
		n += len(list)
	}
	return n, err
}
