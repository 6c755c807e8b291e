package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A maker writes layers of a store file by file, as docs/format.md has them: with all that the code does to keep a real one safe, tens of
// thousands would take longer than a benchmark may. They have the shape of small real layers: directories, files that others share,
// one file of their own. What is made is sound, and the rows that follow use it as they would any other.
type maker struct {
	home  string
	model *object.Commit                 // of a layer that was applied; all layers have the same names but for one, sizes and times
	metas []object.Checksum              // of its directories usr, usr/lib, usr/lib/pkg
	pool  map[string]object.Checksum     // files that layers share, by content
	inos  map[object.Checksum]sharedFile // where they are
}

type sharedFile struct {
	path string
	ino  uint64
}

var crowdTime = time.Unix(1600000000, 0)

const crowdFiles = 6

// crowdText is what a file of a layer holds, always 64 bytes: the first is the layer's own.
func crowdText(image, n, i int) string {
	if i == 0 {
		return fmt.Sprintf("%-64s", fmt.Sprintf("what only image %d has in layer %d", image, n))
	}
	return fmt.Sprintf("%-64s", fmt.Sprintf("file %d of layer %d, version %d", i, n, (image/7+i)%4))
}

func crowdDir(n int) string { return fmt.Sprintf("pkg%02d", n) }

// crowdTar is the layer as a tar.
func crowdTar(image, n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range crowdFiles {
		text := crowdText(image, n, i)
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/%s/f%d", crowdDir(n), i), Mode: 0o644, Size: int64(len(text)), ModTime: crowdTime,
		}
		if err := errors.Join(w.WriteHeader(h), second(w.Write([]byte(text)))); err != nil {
			panic(err) // nothing but a broken writer
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// newMaker applies one layer and learns from it.
func newMaker(home string) (*maker, error) {
	c, err := layers.OpenCatalog(home, layers.Options{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := applyTo(c, "model", crowdTar(0, 0)); err != nil {
		return nil, err
	}
	l, err := c.Layer("model")
	if err != nil {
		return nil, err
	}
	m := &maker{home: home, pool: map[string]object.Checksum{}, inos: map[object.Checksum]sharedFile{}}
	if m.model, err = c.Repo().ReadCommit(l.Commit); err != nil {
		return nil, err
	}
	for at := m.model.Tree; ; {
		t, err := c.Repo().ReadDirTree(at)
		if err != nil {
			return nil, err
		}
		if len(t.Dirs) == 0 {
			return m, nil
		}
		m.metas = append(m.metas, t.Dirs[0].Meta)
		at = t.Dirs[0].Tree
	}
}

func applyTo(c *layers.Catalog, id string, text []byte) error {
	s, err := c.Stage(context.Background(), bytes.NewReader(text), layers.StageOptions{})
	if err != nil {
		return err
	}
	if _, err = c.Create(id, "", layers.CreateOptions{}); err == nil {
		err = c.Commit(id, s)
	}
	return errors.Join(err, s.Close())
}

// images makes that many images.
func (m *maker) images(count int) error {
	for i := range 256 {
		if err := os.Mkdir(filepath.Join(m.home, "repo/objects", fmt.Sprintf("%02x", i)), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for image := range min(count, 28) { // all versions of all shared files
		for n := range imageLayers {
			for i := 1; i < crowdFiles; i++ {
				if err := m.share(crowdText(image, n, i)); err != nil {
					return err
				}
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(2)
	for image := range count {
		g.Go(func() error {
			var above []string
			for n := range imageLayers {
				if err := m.layer(image, n, above); err != nil {
					return fmt.Errorf("image %d, layer %d: %w", image, n, err)
				}
				above = append([]string{crowdLayer(image, n)}, above...)
			}
			return nil
		})
	}
	return g.Wait()
}

func (m *maker) objectPath(c object.Checksum, t object.Type) string {
	return filepath.Join(m.home, "repo/objects", object.Name{Checksum: c, Type: t}.LoosePath())
}

var plainFile = object.FileHeader{Mode: unix.S_IFREG | 0o644}

// share makes an object that many layers have.
func (m *maker) share(text string) error {
	if _, ok := m.pool[text]; ok {
		return nil
	}
	sum, err := plainFile.Checksum([]byte(text))
	if err != nil {
		return err
	}
	path := m.objectPath(sum, object.TypeFile)
	ino, err := writeFile(path, text)
	m.pool[text], m.inos[sum] = sum, sharedFile{path, ino}
	return err
}

func writeFile(path, text string) (uint64, error) {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil && !errors.Is(err, os.ErrExist) {
		return 0, err
	}
	if err := os.Chtimes(path, crowdTime, crowdTime); err != nil {
		return 0, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Sys().(*syscall.Stat_t).Ino, nil
}

// layer makes one layer of a chain: tree and objects, commit and ref, the index's list, the list of inodes, the record.
func (m *maker) layer(image, n int, above []string) error {
	dir := filepath.Join(m.home, "layers", crowdLayer(image, n))
	inner := filepath.Join(dir, "tree/usr/lib", crowdDir(n))
	if err := os.MkdirAll(inner, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"diff", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	var inos []uint64
	var tree object.DirTree
	for i := range crowdFiles {
		text, name := crowdText(image, n, i), fmt.Sprintf("f%d", i)
		sum, ok := m.pool[text]
		at := m.inos[sum]
		if !ok {
			var err error
			if sum, err = plainFile.Checksum([]byte(text)); err != nil {
				return err
			}
			at.path = m.objectPath(sum, object.TypeFile)
			if at.ino, err = writeFile(at.path, text); err != nil {
				return err
			}
		}
		if err := os.Link(at.path, filepath.Join(inner, name)); err != nil {
			return err
		}
		inos = append(inos, at.ino)
		tree.Files = append(tree.Files, object.TreeFile{Name: name, Checksum: sum})
	}
	commit, keys, err := m.commit(&tree, n)
	if err != nil {
		return err
	}
	index := filepath.Join(m.home, "repo/extensions/ostree-storage/index")
	ref := filepath.Join(index, "refs", commit.String())
	return errors.Join(
		os.WriteFile(filepath.Join(index, "new", commit.String()), keyList(keys), 0o600),
		os.WriteFile(ref, []byte(commit.String()+"\n"), 0o644),
		os.Link(ref, filepath.Join(m.home, "repo/refs/heads/layer", crowdLayer(image, n))),
		writeInodes(dir, inos), writeRecord(dir, commit, above))
}

// commit makes the metadata objects of a layer, and returns all that it reaches.
func (m *maker) commit(inner *object.DirTree, n int) (object.Checksum, []object.Checksum, error) {
	all := slices.Concat(m.metas, []object.Checksum{m.model.Meta})
	for _, f := range inner.Files {
		all = append(all, f.Checksum)
	}
	put := func(b []byte, err error, t object.Type) (object.Checksum, error) {
		if err != nil {
			return object.Checksum{}, err
		}
		sum := object.Sum(b)
		all = append(all, sum)
		return sum, os.WriteFile(m.objectPath(sum, t), b, 0o644)
	}
	b, err := inner.AppendBinary(nil)
	at, err := put(b, err, object.TypeDirTree)
	names := []string{"usr", "lib", crowdDir(n)}
	for i := len(names) - 1; i >= 0 && err == nil; i-- {
		outer := object.DirTree{Dirs: []object.TreeDir{{Name: names[i], Tree: at, Meta: m.metas[i]}}}
		b, err = outer.AppendBinary(nil)
		at, err = put(b, err, object.TypeDirTree)
	}
	c := *m.model
	c.Tree = at
	if err == nil {
		b, err = c.AppendBinary(nil)
	}
	sum, err := put(b, err, object.TypeCommit)
	return sum, all, err
}

func keyList(all []object.Checksum) []byte {
	keys := make([]uint64, 0, len(all))
	for _, c := range all {
		keys = append(keys, binary.BigEndian.Uint64(c[:]))
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	b := binary.LittleEndian.AppendUint64([]byte("OSTlist1"), uint64(len(keys)))
	for _, k := range keys {
		b = binary.LittleEndian.AppendUint64(b, k)
	}
	return b
}

func writeInodes(dir string, inos []uint64) error {
	st, err := os.Stat(filepath.Join(dir, "tree"))
	if err != nil {
		return err
	}
	slices.SortFunc(inos, cmp.Compare)
	le := binary.LittleEndian
	b := le.AppendUint64([]byte("OSinode1"), st.Sys().(*syscall.Stat_t).Ino)
	b = le.AppendUint64(le.AppendUint64(b, uint64(len(inos))), 0)
	b = append(b, make([]byte, 8)...)
	for _, ino := range inos {
		b = le.AppendUint64(b, ino)
	}
	b = append(b, make([]byte, 4*len(inos))...) // all are lane 0
	le.PutUint32(b[32:], crc32.Checksum(b[40:], crc32.MakeTable(crc32.Castagnoli)))
	return os.WriteFile(filepath.Join(dir, "inodes"), b, 0o600)
}

func writeRecord(dir string, commit object.Checksum, above []string) error {
	text := ""
	if len(above) > 0 {
		text = fmt.Sprintf(`"parent":%q,`, above[0])
	}
	text = fmt.Sprintf("{%s\"commit\":%q,\"size\":%d,\"entries\":%d,\"depth\":%d}\n", text, commit.String(), 64*crowdFiles, crowdFiles+4, len(above))
	for _, a := range above {
		text += a + "\n"
	}
	return os.WriteFile(filepath.Join(dir, "record"), []byte(text), 0o600)
}
