package store_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// shelf is a repository with many small layers that share files.
type shelf struct {
	t       *testing.T
	home    string
	repo    *store.Repo
	commits map[string]object.Checksum // by ref
}

func newShelf(t *testing.T) *shelf {
	home := t.TempDir()
	return &shelf{t, home, storetest.At(t, home+"/repo", store.Options{}), map[string]object.Checksum{}}
}

// publish adds a layer of some of a hundred files, and removes its tree, for the objects are what is looked at.
func (s *shelf) publish(ref string, r *rand.Rand) {
	l := stage(s.t, s.repo, store.StageOptions{})
	for i := range 100 {
		if r.IntN(4) == 0 {
			l.put(fmt.Sprintf("file%02d", i), regular(0o644, 1000), fmt.Sprint("content ", i%70))
		}
	}
	dir := filepath.Join(s.home, strings.ReplaceAll(ref, "/", "-"))
	s.commits[ref], _ = l.publish(ref, dir)
	if err := os.RemoveAll(dir); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) remove(ref string) {
	s.t.Helper()
	if err := s.repo.DeleteRef(ref); err != nil {
		s.t.Fatal(err)
	}
	c := s.commits[ref]
	delete(s.commits, ref)
	if _, err := s.repo.Release(context.Background(), c); err != nil {
		s.t.Fatal(err)
	}
}

// check compares the objects that are there with those that the commits reach.
func (s *shelf) check() {
	s.t.Helper()
	want := map[string]bool{}
	for _, c := range s.commits {
		commit, err := s.repo.ReadCommit(c)
		if err != nil {
			s.t.Fatal(err)
		}
		want[c.String()+".commit"] = true
		want[commit.Meta.String()+".dirmeta"] = true
		want[commit.Tree.String()+".dirtree"] = true
		tree, err := s.repo.ReadDirTree(commit.Tree)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range tree.Files {
			want[f.Checksum.String()+".file"] = true
		}
	}
	top := s.home + "/repo/objects/"
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.ReplaceAll(strings.TrimPrefix(path, top), "/", "")
		if !want[name] {
			s.t.Errorf("%s was left behind", name)
		}
		delete(want, name)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for name := range want {
		s.t.Errorf("%s was lost", name)
	}
}

func (s *shelf) index(parts ...string) string {
	return filepath.Join(append([]string{s.home, "repo/extensions/ostree-storage/index"}, parts...)...)
}

// TestReleaseLeavesNothingBehind removes layers in any order, across compactions of the index, and never prunes.
func TestReleaseLeavesNothingBehind(t *testing.T) {
	s := newShelf(t)
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 90 {
		s.publish(fmt.Sprintf("layer/%d", i), r)
		if i%9 == 8 {
			s.remove(fmt.Sprintf("layer/%d", i-r.IntN(4)))
			s.check()
		}
	}
	if _, err := os.Stat(s.index("manifest")); err != nil {
		t.Errorf("the index was never compacted: %v", err)
	}
	for ref := range s.commits {
		s.remove(ref)
	}
	s.check()
	if left, err := os.ReadDir(s.index("lists")); err != nil || len(left) != 0 {
		t.Errorf("the index still counts %v (%v)", left, err)
	}
}

// TestOneCommitWithTwoNames: the commit goes with its last name.
func TestOneCommitWithTwoNames(t *testing.T) {
	s := newShelf(t)
	s.publish("layer/a", rand.New(rand.NewPCG(1, 1)))
	s.publish("layer/b", rand.New(rand.NewPCG(1, 1)))
	if s.commits["layer/a"] != s.commits["layer/b"] {
		t.Fatal("equal layers are not one commit")
	}
	s.remove("layer/a")
	s.check()
	s.publish("layer/a", rand.New(rand.NewPCG(1, 1)))
	s.remove("layer/b")
	s.check()
	s.remove("layer/a")
	s.check()
}

// TestReleaseWithoutItsIndex: a lost or damaged index costs time, not objects, and Prune makes it anew.
func TestReleaseWithoutItsIndex(t *testing.T) {
	for name, hurt := range map[string]func(s *shelf) error{
		"lost": func(s *shelf) error { return os.RemoveAll(s.index()) },
		"emptied": func(s *shelf) error {
			for _, folder := range []string{"new", "lists"} {
				files, err := filepath.Glob(s.index(folder, "*"))
				if err != nil {
					return err
				}
				for _, file := range files {
					if err := os.Remove(file); err != nil {
						return err
					}
				}
			}
			return nil
		},
		"truncated": func(s *shelf) error {
			for _, c := range s.commits {
				if err := os.WriteFile(s.index("new", c.String()), []byte("torn"), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"manifest": func(s *shelf) error { return os.WriteFile(s.index("manifest"), []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			r := rand.New(rand.NewPCG(2, 2))
			for i := range 6 {
				s.publish(fmt.Sprintf("layer/%d", i), r)
			}
			if err := hurt(s); err != nil {
				t.Fatal(err)
			}
			again, err := store.Open(s.home + "/repo")
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			s.repo = again
			s.remove("layer/3")
			s.check()
			if _, err := again.Prune(context.Background(), false); err != nil {
				t.Fatal(err)
			}
			s.check()
			if lists, err := os.ReadDir(s.index("new")); err != nil || len(lists) != len(s.commits) {
				t.Errorf("after Prune the index has %d lists, want %d (%v)", len(lists), len(s.commits), err)
			}
			for ref := range s.commits {
				s.remove(ref)
			}
			s.check()
		})
	}
}
