package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"time"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/idtools"
)

// chainLength is as many layers as the issue asks for; overlay's own limit is 500 lower directories.
const chainLength = 499

// deep mounts containers of one layer and of a chain as long as overlayfs takes.
func (j *job) deep(m *meter) error {
	a, _, err := j.openDriver()
	if err != nil {
		return err
	}
	parent := ""
	for n := range chainLength {
		id := fmt.Sprintf("chain%03d", n)
		if err := a.Create(id, parent, nil); err != nil {
			return err
		}
		o := graphdriver.ApplyDiffOpts{Diff: bytes.NewReader(oneFile(n)), Mappings: &idtools.IDMappings{}}
		if _, err := a.ApplyDiff(id, o); err != nil {
			return err
		}
		parent = id
	}
	for _, top := range []int{0, chainLength - 1} {
		name := fmt.Sprintf("create, mount, unmount, remove on %d layers", top+1)
		err := m.repeated(name, 3, 30, func(i int) error {
			return a.containerOf(fmt.Sprintf("chain%03d", top), fmt.Sprint(top, "-", i), graphdriver.MountOpts{})
		})
		if err != nil {
			return err
		}
	}
	return a.Cleanup()
}

// oneFile is a layer tar of one directory and one file.
func oneFile(n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := fmt.Sprint("layer ", n)
	at := time.Unix(1600000000, 0)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "srv/", Mode: 0o755, ModTime: at})
	if err == nil {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("srv/f%d", n), Mode: 0o644, Size: int64(len(body)), ModTime: at})
	}
	if err == nil {
		_, err = w.Write([]byte(body))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // nothing but a broken writer
	}
	return b.Bytes()
}
