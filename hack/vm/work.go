package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	storage "go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	_ "github.com/ostree-storage/ostree-storage/plugin" // the driver
	"github.com/ostree-storage/ostree-storage/store"
)

const mountPoint = "/tmp/mnt"

// The marks: what had been acknowledged by then.
const (
	pulled  = "pulled"  // the first image
	both    = "both"    // and the second
	removed = "removed" // the first one again
)

// And each layer by its id, as soon as it was put. Nothing has ended its use of the store then.

// record pulls two images that share a layer and removes the first, each in a use of the store of its own, as a program would.
func record(l *writeLog, kind string) error {
	if err := mount(l.path, kind); err != nil {
		return err
	}
	steps := []struct {
		mark string
		do   func(storage.Store) error
	}{
		{pulled, func(s storage.Store) error { return pull(s, "first", l.mark) }},
		{both, func(s storage.Store) error { return pull(s, "second", l.mark) }},
		{removed, func(s storage.Store) error { _, err := s.DeleteImage("first", true); return err }},
	}
	for _, step := range steps {
		s, err := open(mountPoint)
		if err != nil {
			return err
		}
		if err := step.do(s); err != nil {
			return err
		}
		if err := end(s); err != nil {
			return err
		}
		if err := l.mark(step.mark); err != nil {
			return err
		}
		fmt.Println("done:", step.mark)
	}
	return unmount()
}

func mount(device, kind string) error {
	if err := os.MkdirAll(mountPoint, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, mountPoint, kind, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

func open(dir string) (storage.Store, error) {
	return storage.GetStore(storage.StoreOptions{
		GraphRoot: filepath.Join(dir, "root"), RunRoot: "/run/containers", GraphDriverName: "ostree",
		GraphDriverOptions: []string{"pinned_store=none"},
	})
}

func end(s storage.Store) error {
	_, err := s.Shutdown(false)
	s.Free()
	return err
}

// layerTar makes the tar of a layer; of layers with other numbers a part of the files is the same.
func layerTar(n uint64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	own, shared := rand.New(rand.NewPCG(n, 1)), rand.New(rand.NewPCG(0, 1))
	for k := range 40 {
		rnd := own
		if k%2 == 0 {
			rnd = shared
		}
		text := make([]byte, 1+rnd.IntN(8000))
		for i := range text {
			text[i] = byte(rnd.Uint32())
		}
		h := &tar.Header{Name: fmt.Sprintf("srv/d%d/f%d", k%5, k), Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1700000000, 0)}
		if err := errors.Join(w.WriteHeader(h), second(w.Write(text))); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func second(_ int, err error) error { return err }

// contents are the layers of the images, by id: the first of each is shared.
var contents = map[string][]uint64{"first": {1, 2}, "second": {1, 3}}

func layerID(n uint64) string { return fmt.Sprint("layer", n) }

// pull calls put with the id of each layer that is there.
func pull(s storage.Store, image string, put func(id string) error) error {
	parent := ""
	for _, n := range contents[image] {
		id := layerID(n)
		if _, _, err := s.PutLayer(id, parent, nil, "", false, nil, bytes.NewReader(layerTar(n))); err != nil && !errors.Is(err, storage.ErrDuplicateID) {
			return err
		}
		if err := put(id); err != nil {
			return err
		}
		parent = id
	}
	_, err := s.CreateImage(image, []string{"localhost/" + image + ":1"}, parent, "", nil)
	return err
}

// verify mounts a copy of the disk as after a power cut and looks for all that had been acknowledged. Then everything is done again
// that was not, which must work.
func verify(disk, kind string, past []string) error {
	const cut = "/tmp/cut"
	device, err := copyToLoop(disk, cut)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := mount(device.Name(), kind); err != nil {
		return err
	}
	err = look(past)
	return errors.Join(err, unmount(), os.Remove(cut), os.RemoveAll("/run/containers"))
}

// unmount waits for threads of the kernel that are done with the filesystem in a moment. What this process holds is an error.
func unmount() error {
	var err error
	for range 50 {
		if err = unix.Unmount(mountPoint, 0); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if path, _ := os.Readlink(fd); strings.HasPrefix(path, mountPoint) {
			err = fmt.Errorf("%w: %s is open", err, path)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	return fmt.Errorf("%w\n%s", err, mounts)
}

func look(past []string) error {
	if err := haveLayers(past); err != nil {
		return err
	}
	began := time.Now()
	s, err := open(mountPoint)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	images, err := s.Images()
	if err != nil {
		return err
	}
	fmt.Printf("after %q: %d images, opened in %v\n", past, len(images), time.Since(began).Round(time.Millisecond))
	found := map[string]bool{}
	for _, i := range images {
		found[i.ID] = true
		for _, n := range contents[i.ID] {
			if err := compare(s, n); err != nil {
				return fmt.Errorf("image %s: %w", i.ID, err)
			}
		}
	}
	has := func(mark string) bool { return slices.Contains(past, mark) }
	switch {
	case has(pulled) && !has(both) && !found["first"], has(both) && !found["second"], has(removed) && found["first"]:
		return fmt.Errorf("there are %v", found)
	}
	if err := end(s); err != nil {
		return err
	}
	if err := sound(); err != nil {
		return err
	}
	if s, err = open(mountPoint); err != nil {
		return err
	}
	for _, image := range []string{"first", "second"} {
		if !found[image] {
			if err := pull(s, image, func(string) error { return nil }); err != nil {
				return fmt.Errorf("pull %s again: %w", image, err)
			}
		}
		if _, err := s.DeleteImage(image, true); err != nil {
			return err
		}
	}
	if err := end(s); err != nil {
		return err
	}
	return sound()
}

// haveLayers looks for the layers that had been put, before containers/storage opens the store: it removes those whose record was not yet
// durable.
func haveLayers(past []string) error {
	if len(past) == 0 { // not even a home
		return nil
	}
	c, err := layers.OpenCatalog(home(), layers.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer c.Close()
	for image, numbers := range contents {
		for _, n := range numbers {
			if id := layerID(n); slices.Contains(past, id) && (image == "second" || !slices.Contains(past, both)) {
				if l, err := c.Layer(id); err != nil || !l.Applied() {
					return fmt.Errorf("%s was put, and is not there: %w", id, err)
				}
			}
		}
	}
	return nil
}

func home() string { return filepath.Join(mountPoint, "root", "ostree") }

// compare reads a layer back.
func compare(s storage.Store, n uint64) error {
	rc, err := s.Diff("", layerID(n), nil)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		return err
	}
	if !bytes.Equal(b, layerTar(n)) {
		return fmt.Errorf("layer %d is not what was pulled", n)
	}
	return nil
}

func sound() error {
	c, err := layers.OpenCatalog(home(), layers.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer c.Close()
	var found []error
	ctx := context.Background()
	err = c.Check(ctx, layers.CheckOptions{}, func(f layers.Fault) { found = append(found, errors.New(f.String())) })
	err = errors.Join(err, c.Repo().Fsck(ctx, store.FsckOptions{}, func(f store.Finding) { found = append(found, errors.New(f.String())) }))
	return errors.Join(append(found, err)...)
}

// copyToLoop copies the disk and puts the copy behind a loop device, which goes when it is closed and unmounted.
func copyToLoop(from, to string) (*os.File, error) {
	image, err := copyDisk(from, to)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	loop, err := os.OpenFile("/dev/loop0", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	for range 100 { // the last one may still be going
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &c); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("loop device: %w", err)
	}
	return loop, nil
}
