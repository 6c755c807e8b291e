package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sharers    = 10
	cacheFiles = 400
	fileSize   = 48 << 10
)

// cache runs ten containers of ten images that share 80 % of their bytes, each of which reads all of its files, and counts what the page
// cache holds of them then.
func (j *job) cache(m *meter) error {
	st, err := j.open("cache")
	if err != nil {
		return err
	}
	var containers, roots []string
	for n := range sharers {
		text := imageTar(n)
		layer, _, err := st.PutLayer("", "", nil, "", false, nil, bytes.NewReader(text))
		if err != nil {
			return err
		}
		image, err := st.CreateImage("", nil, layer.ID, "", nil)
		if err != nil {
			return err
		}
		c, err := st.CreateContainer("", nil, image.ID, "", "", nil)
		if err != nil {
			return err
		}
		root, err := st.Mount(c.ID, "")
		if err != nil {
			return err
		}
		containers, roots = append(containers, c.ID), append(roots, root)
	}
	home := filepath.Join(st.GraphRoot(), j.Driver)
	if err := m.settle(); err != nil {
		return err
	}
	if _, err := cached(home, true); err != nil {
		return err
	}
	for _, root := range roots {
		if err := readAll(root); err != nil {
			return err
		}
	}
	held, err := cached(home, false)
	if err != nil {
		return err
	}
	m.value("page cache of ten containers that share 80 %", "MB", float64(held)/1e6)
	for _, id := range containers {
		if _, err := st.Unmount(id, false); err != nil {
			return err
		}
		if err := st.DeleteContainer(id); err != nil {
			return err
		}
	}
	_, err = st.Shutdown(false)
	return err
}

// imageTar is a layer tar whose first four fifths are the same for every n.
func imageTar(n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := make([]byte, fileSize)
	for i := range cacheFiles {
		seed := uint64(i)
		if i >= cacheFiles*4/5 {
			seed += uint64(n+1) << 32
		}
		r := rand.New(rand.NewPCG(seed, 1))
		for k := 0; k < len(body); k += 8 {
			binary.LittleEndian.PutUint64(body[k:], r.Uint64())
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/f%d", i), Mode: 0o644, Size: fileSize, ModTime: time.Unix(1600000000, 0)}
		if err := errors.Join(w.WriteHeader(h), second(w.Write(body))); err != nil {
			panic(err) // nothing but a broken writer
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func second(_ int, err error) error { return err }

func readAll(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

// cached sums what the page cache holds of the regular files below dir, each inode once; with drop it asks the kernel to forget them.
func cached(dir string, drop bool) (sum int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() && e.Name() == "merged" {
			return filepath.SkipDir
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || seen[st.Ino] {
			return err
		}
		seen[st.Ino] = true
		if drop {
			return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		var c unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &c, 0); err != nil {
			return err
		}
		sum += int64(c.Cache) * int64(os.Getpagesize())
		return nil
	})
	return sum, err
}
