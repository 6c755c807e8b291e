package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// must ends the program with an error.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// mkimage is a program of the scripts: mkimage NAME DIR... makes an image of a layer a directory. A directory "@ID" is a layer that is
// there already. mkimage container NAME IMAGE makes a container; mkimage remove IMAGE... removes images.
func mkimage() {
	o, err := storage.DefaultStoreOptions()
	must(err)
	s, err := storage.GetStore(o)
	must(err)
	args := os.Args[1:]
	switch args[0] {
	case "container":
		_, err = s.CreateContainer("", []string{args[1]}, args[2], "", "", nil)
		must(err)
	case "run": // mounts a container, writes into it, and leaves it mounted
		dir, err := s.Mount(args[1], "")
		must(err)
		must(os.WriteFile(filepath.Join(dir, "usr", "written"), []byte("by a container"), 0o644))
		must(os.Remove(filepath.Join(dir, "usr", "tool")))
		must(os.Rename(filepath.Join(dir, "etc", "conf"), filepath.Join(dir, "etc", "moved")))
	case "remove":
		for _, arg := range args[1:] {
			_, err = s.DeleteImage(arg, true)
			must(err)
		}
	case "orphan":
		_, _, err = s.PutLayer("", "", nil, "", false, nil, bytes.NewReader(tarOf(args[1])))
		must(err)
	default:
		putImage(s, args[0], args[1:])
	}
	if _, err = s.Shutdown(false); !errors.Is(err, storage.ErrLayerUsedByContainer) {
		must(err)
	}
}

func putImage(s storage.Store, name string, dirs []string) {
	top := ""
	var diffs []string
	for _, dir := range dirs {
		b := tarOf(dir)
		sum := digest.FromBytes(b)
		diffs = append(diffs, sum.String())
		id := sum.Encoded()
		if top != "" {
			id = digest.FromString(top + id).Encoded()
		}
		if l, err := s.Layer(id); err == nil {
			top = l.ID
			continue
		}
		l, _, err := s.PutLayer(id, top, nil, "", false, nil, bytes.NewReader(b))
		must(err)
		top = l.ID
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
		"history": []any{map[string]any{"created": "2026-01-02T03:04:05Z", "created_by": "COPY " + strings.Join(dirs, " ")}},
	})
	must(err)
	id := digest.FromBytes(config).Encoded()
	image, err := s.CreateImage(id, []string{name}, top, "", &storage.ImageOptions{CreationDate: time.Unix(1767323045, 0)})
	if err != nil {
		must(s.AddNames(id, []string{name}))
		return
	}
	must(s.SetImageBigData(image.ID, "sha256:"+id, config, nil))
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	list := []descriptor{}
	for i, dir := range dirs {
		list = append(list, descriptor{"application/vnd.oci.image.layer.v1.tar", diffs[i], len(tarOf(dir))})
	}
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor{"application/vnd.oci.image.config.v1+json", "sha256:" + id, len(config)}, "layers": list,
	})
	must(err)
	sum := func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }
	must(s.SetImageBigData(image.ID, "manifest", m, sum))
}

// tarOf makes a layer of a directory. A file NAME.dev, .fifo or .link says in its text what it is to be.
func tarOf(dir string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		i, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, Mode: int64(i.Mode().Perm()), ModTime: time.Unix(1700000000, 0), Typeflag: tar.TypeDir}
		var body []byte
		switch {
		case i.Mode()&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			h.Linkname, err = os.Readlink(p)
		case i.Mode()&fs.ModeNamedPipe != 0:
			h.Typeflag = tar.TypeFifo
		case i.Mode()&fs.ModeCharDevice != 0:
			var st unix.Stat_t
			err = unix.Lstat(p, &st)
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		case i.Mode().IsRegular():
			h.Typeflag = tar.TypeReg
			body, err = os.ReadFile(p)
			h.Size = int64(len(body))
		}
		if err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(body)
		return err
	}))
	must(w.Close())
	return b.Bytes()
}

// damage is a program of the scripts that does what disks and people do to a store.
func damage() {
	verb, target := os.Args[1], os.Args[2]
	paths, err := filepath.Glob(target)
	must(err)
	if len(paths) == 0 {
		must(fmt.Errorf("%s: no such file", target))
	}
	for _, p := range paths {
		var st unix.Stat_t
		must(unix.Lstat(p, &st))
		switch verb {
		case "flip":
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			must(err)
			b := make([]byte, 1)
			_, err = f.ReadAt(b, st.Size/2)
			must(err)
			b[0] ^= 1
			_, err = f.WriteAt(b, st.Size/2)
			must(err)
			must(f.Close())
			must(os.Chtimes(p, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix())))
		case "remove":
			must(os.RemoveAll(p))
		}
	}
}

// printLabels is a program of the scripts that prints the SELinux labels of paths, or none.
func printLabels() {
	for _, p := range os.Args[1:] {
		b := make([]byte, 512)
		n, err := unix.Lgetxattr(p, "security.selinux", b)
		label := strings.TrimSuffix(string(b[:max(n, 0)]), "\x00")
		if err == unix.ENODATA {
			label, err = "none", nil
		}
		must(err)
		fmt.Println(p, label)
	}
}
