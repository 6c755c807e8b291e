package store_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/storetest"
)

// TestInodesRebuilt loses, damages and outdates a list, and copies a store, and wants what the tree shares all the same.
func TestInodesRebuilt(t *testing.T) {
	home := t.TempDir()
	r := storetest.At(t, home+"/repo", store.Options{})
	l := stage(t, r, store.StageOptions{})
	l.put("a", regular(0o644, 1), "a")
	l.put("b", regular(0o644, 1), "a")
	l.put("e", regular(0o644, 1), "")
	if err := os.MkdirAll(l.stage.Path()+"/tree/"+strings.Repeat("deep/", 300), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(l.stage.Path()+"/tree/a", l.stage.Path()+"/tree/"+strings.Repeat("deep/", 300)+"z"); err != nil {
		t.Fatal(err)
	}
	_, good := l.publish("layer/one", home+"/one")
	if n, ok := good.Lane(ino(t, home+"/one/tree/b")); n != 1 || !ok || good.Len() != 2 {
		t.Errorf("lane %d, %v; %d inodes", n, ok, good.Len())
	}
	list := home + "/one/inodes"
	whole, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"missing":  func() error { return os.Remove(list) },
		"empty":    func() error { return os.WriteFile(list, nil, 0o600) },
		"cut":      func() error { return os.WriteFile(list, whole[:len(whole)-1], 0o600) },
		"bit rot":  func() error { whole[45] ^= 4; return os.WriteFile(list, whole, 0o600) },
		"restored": func() error { return exec.Command("cp", "-a", home+"/one", home+"/repo", t.TempDir()).Run() },
	} {
		t.Run(name, func(t *testing.T) {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time from what the first wrote
				l, err := store.OpenInodes(list, home+"/one/tree")
				if err != nil {
					t.Fatal(err)
				}
				if l.Len() != 2 || !l.Contains(ino(t, home+"/one/tree/a")) || l.Contains(ino(t, home+"/one/tree/e")) {
					t.Errorf("%d inodes", l.Len())
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	copied := t.TempDir()
	if out, err := exec.Command("cp", "-a", home+"/one", home+"/repo", copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %s", out)
	}
	stale, err := store.OpenInodes(copied+"/one/inodes", copied+"/one/tree")
	if err != nil {
		t.Fatal(err)
	}
	defer stale.Close()
	if !stale.Contains(ino(t, copied+"/one/tree/a")) || stale.Contains(ino(t, home+"/one/tree/a")) {
		t.Error("the copy's list is that of the original")
	}
	if _, err := store.OpenInodes(list, home+"/nothing"); err == nil {
		t.Error("opened a list without a tree")
	}
}
