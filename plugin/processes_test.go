package plugin_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	storage "go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

const churnVariable = "OSTREE_TEST_CHURN"

// TestProcesses has several programs put, use and delete the same images in one store.
func TestProcesses(t *testing.T) {
	testfs.Each(t, func(t *testing.T, dir string) {
		var programs sync.WaitGroup
		for n := range 3 {
			programs.Add(1)
			go func() {
				defer programs.Done()
				cmd := exec.Command(os.Args[0], "-test.run=^TestChurn$", "-test.v")
				cmd.Env = append(os.Environ(), churnVariable+"="+fmt.Sprint(n)+":"+dir)
				if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
					t.Errorf("program %d: %v\n%s", n, err, out)
				}
			}()
		}
		programs.Wait()
		s := openStore(t, dir)
		wantNoLayers(t, s)
		wantSound(t, s)
		closeStore(t, s)
	})
}

// TestChurn is one program of TestProcesses.
func TestChurn(t *testing.T) {
	n, dir, ok := strings.Cut(os.Getenv(churnVariable), ":")
	if !ok {
		t.Skip("this is a part of TestProcesses, which runs it in processes of their own")
	}
	s := openStore(t, dir)
	base, change := baseLayer(t), changeLayer(t)
	for i := range 8 {
		id := fmt.Sprintf("img%s%d", n, i)
		img := putImage(t, s, id, base, change)
		c, err := s.CreateContainer("ctr"+id, nil, img.ID, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		useContainer(t, s, c)
		wantDiff(t, s, id+"-1", change)
		if err := s.DeleteContainer(c.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.DeleteImage(img.ID, true); err != nil {
			t.Fatal(err)
		}
	}
	// What the other programs have mounted keeps the store open.
	if _, err := s.Shutdown(false); err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
		t.Error(err)
	}
	s.Free()
}
