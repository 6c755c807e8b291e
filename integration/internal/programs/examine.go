package programs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// finish removes the containers of the store and examines it.
func (s *Store) finish() {
	if podman, err := exec.LookPath("runc"); err == nil {
		s.stopContainers(podman)
	}
	if s.Driver == "ostree" {
		s.Examine()
	}
}

// stopContainers kills what an aborted test left running under this store's run directory.
func (s *Store) stopContainers(runc string) {
	bundles, err := filepath.Glob(filepath.Join(s.Root, "*-containers", "*", "userdata", "config.json"))
	if err != nil || len(bundles) == 0 {
		return
	}
	for _, b := range bundles {
		id := filepath.Base(filepath.Dir(filepath.Dir(b)))
		exec.Command(runc, "delete", "--force", id).Run() // most are gone already
	}
}

// Examine checks the repository with the real ostree: fsck, the refs of all layers, a listing and a checkout of
// each, and a pull into a fresh repository, which must pass fsck as well.
func (s *Store) Examine() {
	s.t.Helper()
	repo := s.Repo()
	if _, err := os.Stat(repo); os.IsNotExist(err) {
		// Containers/storage itself makes the empty directory.
		if names, err := os.ReadDir(s.Home()); err == nil && len(names) > 0 {
			s.t.Errorf("the driver made %s without a repository", s.Home())
		}
		return
	}
	if _, err := exec.LookPath("ostree"); err != nil {
		s.t.Skip("the ostree command is not installed")
	}
	s.ostree("fsck", "--repo="+repo, "--quiet")
	refs := strings.Fields(s.ostree("refs", "--repo="+repo))
	known := map[string]bool{}
	for _, ref := range refs {
		known[ref] = true
	}
	for id := range s.Layers() {
		if !known["layer/"+id] {
			s.t.Errorf("layer %s has no ref in the repository", id)
		}
	}
	for _, ref := range refs {
		if out := s.ostree("ls", "--repo="+repo, "-R", ref); !strings.HasPrefix(out, "d") {
			s.t.Errorf("ostree ls -R %s prints %.200q", ref, out)
		}
	}
	if !s.FsckOnly {
		s.checkOut(repo, refs)
	}
	s.ownFsck(context.Background())
}

// checkOut checks layers out and copies all of them into a repository of their own.
func (s *Store) checkOut(repo string, refs []string) {
	s.t.Helper()
	place, err := os.MkdirTemp(s.Dir, "examine-")
	if err != nil {
		s.t.Error(err)
		return
	}
	defer os.RemoveAll(place)
	for n, ref := range refs {
		if n == 8 { // enough of a long build
			break
		}
		s.ostree("checkout", "--repo="+repo, "--require-hardlinks", ref, filepath.Join(place, strings.ReplaceAll(ref, "/", "_")))
	}
	copied := filepath.Join(place, "copy")
	s.ostree("init", "--repo="+copied, "--mode=bare")
	if len(refs) > 0 {
		s.ostree("pull-local", "--repo="+copied, repo)
		if got := strings.Fields(s.ostree("refs", "--repo="+copied)); len(got) != len(refs) {
			s.t.Errorf("pull-local copied %d of %d refs", len(got), len(refs))
		}
		for _, ref := range refs[:min(len(refs), 8)] {
			s.ostree("ls", "--repo="+copied, "-R", ref)
		}
		// Files that are the same inodes have been checked.
		if !sameFiles(s.t, repo, copied) {
			s.ostree("fsck", "--repo="+copied, "--quiet")
		}
	}
}

// sameFiles says whether every file object of the copy is the original's.
func sameFiles(t testing.TB, repo, copied string) bool {
	t.Helper()
	objects, err := filepath.Glob(filepath.Join(copied, "objects", "*", "*.file"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		relative, err := filepath.Rel(copied, o)
		if err != nil {
			t.Fatal(err)
		}
		a, errA := os.Lstat(o)
		b, errB := os.Lstat(filepath.Join(repo, relative))
		if errA != nil || errB != nil || !os.SameFile(a, b) {
			return false
		}
	}
	return true
}

func (s *Store) ostree(args ...string) string {
	s.t.Helper()
	r := Call{Path: "ostree", Args: args, Env: s.env}.Exec(s.t)
	if r.Code != 0 {
		s.t.Error(r)
	}
	return r.Stdout
}
