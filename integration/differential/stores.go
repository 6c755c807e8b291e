package differential

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// StorePair runs chains through containers/storage's public API, under both
// drivers.
type StorePair struct {
	Oracle, Ours *StoreSide
	count        int
}

// StoreSide is one store.
type StoreSide struct {
	Name    string
	Store   storage.Store
	options types.StoreOptions
}

// OpenStore opens a store with the driver that is registered under kind.
func OpenStore(name, kind, root string, options ...string) (*StoreSide, error) {
	if kind == "overlay" {
		options = append(options, "skip_mount_home=true")
	}
	s := &StoreSide{Name: name, options: types.StoreOptions{
		GraphRoot: filepath.Join(root, "root"), RunRoot: filepath.Join(root, "run"), GraphDriverName: kind, GraphDriverOptions: options,
	}}
	return s, s.open()
}

func (s *StoreSide) open() (err error) {
	s.Store, err = storage.GetStore(s.options)
	return err
}

// Close ends the store.
func (s *StoreSide) Close() error {
	_, err := s.Store.Shutdown(true)
	s.Store.Free()
	return err
}

// Restart ends the store and opens it again, as the next program would.
func (s *StoreSide) Restart() error {
	if err := s.Close(); err != nil {
		return err
	}
	return s.open()
}

// storedLayer is a layer that both stores took.
type storedLayer struct {
	id, parent string
	tar        []byte
}

// Run puts the layers of the chain into both stores, restarts both, and compares
// outcomes, sizes, digests, changes, and what comes back of every tar; in the end
// it compares what upstream's own check finds, and deletes everything.
func (p *StorePair) Run(c Chain) ([]Difference, error) {
	p.count++
	var out []Difference
	var layers []storedLayer
	for i, l := range c {
		b, err := l.Tar()
		if err != nil {
			return nil, err
		}
		layer := storedLayer{id: fmt.Sprintf("%x", sha256.Sum256([]byte{byte(p.count >> 16), byte(p.count >> 8), byte(p.count), byte(i)})), tar: b}
		if i > 0 {
			layer.parent = layers[i-1].id
		}
		diffs, ok, err := p.put(layer)
		out = append(out, diffs...)
		if err != nil || len(out) > 0 {
			return out, err
		}
		if !ok {
			break
		}
		layers = append(layers, layer)
	}
	if len(layers) == 0 {
		return nil, nil
	}
	steps := []func([]storedLayer) ([]Difference, error){p.image, p.back, p.check, p.remove}
	if !p.Oracle.servable(c[:len(layers)], layers) {
		steps = []func([]storedLayer) ([]Difference, error){p.image, p.ends, p.remove}
	}
	for _, step := range steps {
		diffs, err := step(layers)
		if out = append(out, diffs...); err != nil || len(out) > 0 {
			return out, err
		}
	}
	return out, nil
}

// put puts one layer into both. It is not ok if the oracle refuses it; then ours
// may refuse it too, or must give it back exactly.
func (p *StorePair) put(l storedLayer) (out []Difference, ok bool, err error) {
	w, wantSize, err := p.Oracle.put(l)
	g, gotSize, ourErr := p.Ours.put(l)
	if err != nil {
		if ourErr != nil {
			return nil, false, nil
		}
		got, err := p.Ours.diff(l)
		if err != nil || !bytes.Equal(got, l.tar) {
			out = append(out, Difference{Where: "store", What: "diff of a layer that only ours took", Want: fmt.Sprintf("%d bytes", len(l.tar)), Got: fmt.Sprintf("%d bytes, %v", len(got), err)})
		}
		return out, false, p.Ours.Store.DeleteLayer(l.id)
	}
	if ourErr != nil {
		return []Difference{{Where: "store", What: "outcome of PutLayer", Want: "success", Got: ourErr.Error()}}, false, nil
	}
	differ := func(what string, want, got any) {
		if want != got {
			out = append(out, Difference{Where: "store", What: what, Want: fmt.Sprint(want), Got: fmt.Sprint(got)})
		}
	}
	differ("size of PutLayer", wantSize, gotSize)
	differ("digest of the layer", w.UncompressedDigest, g.UncompressedDigest)
	differ("size of the layer", w.UncompressedSize, g.UncompressedSize)
	differ("owners in the layer", fmt.Sprint(w.UIDs, w.GIDs), fmt.Sprint(g.UIDs, g.GIDs))
	return out, true, nil
}

func (s *StoreSide) put(l storedLayer) (*storage.Layer, int64, error) {
	return s.Store.PutLayer(l.id, l.parent, nil, "", false, nil, bytes.NewReader(l.tar))
}

func (s *StoreSide) diff(l storedLayer) ([]byte, error) { return s.Diff(l.id) }

// Diff reads a layer back, as a push does.
func (s *StoreSide) Diff(id string) ([]byte, error) {
	uncompressed := archive.Uncompressed
	r, err := s.Store.Diff("", id, &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// image names the top layer, so that the layers are in use, and restarts.
func (p *StorePair) image(layers []storedLayer) ([]Difference, error) {
	for _, s := range []*StoreSide{p.Oracle, p.Ours} {
		top := layers[len(layers)-1].id
		if _, err := s.Store.CreateImage(top, nil, top, "", nil); err != nil {
			return nil, err
		}
		if err := s.Restart(); err != nil {
			return nil, fmt.Errorf("restart %s: %w", s.Name, err)
		}
	}
	return nil, nil
}

// ends asks for tars that cannot come back, since a name of theirs became
// something else: there must be an end, with an error or without.
func (p *StorePair) ends(layers []storedLayer) ([]Difference, error) {
	for _, l := range layers {
		_, _ = p.Ours.diff(l)
	}
	return nil, nil
}

// back compares each tar with what comes back, and the reports on the layer.
func (p *StorePair) back(layers []storedLayer) (out []Difference, _ error) {
	for i, l := range layers {
		where := fmt.Sprintf("store, layer %d", i)
		got, err := p.Ours.diff(l)
		if err != nil || !bytes.Equal(got, l.tar) {
			out = append(out, Difference{Where: where, What: "tar that comes back", Want: fmt.Sprintf("%x", sha256.Sum256(l.tar)), Got: fmt.Sprintf("%x, %v", sha256.Sum256(got), err)})
		}
		want, err := p.Oracle.changes(l)
		if err != nil {
			continue
		}
		lines, err := p.Ours.changes(l)
		if err != nil {
			return out, err
		}
		for _, d := range compareLists(want, lines) {
			d.Where = where + ", changes"
			out = append(out, d)
		}
	}
	return out, nil
}

func (s *StoreSide) changes(l storedLayer) ([]string, error) {
	list, err := s.Store.Changes(l.parent, l.id)
	if err != nil {
		return nil, err
	}
	lines := make([]string, 0, len(list)+1)
	for _, c := range list {
		lines = append(lines, c.String())
	}
	size, err := s.Store.DiffSize(l.parent, l.id)
	lines = append(lines, fmt.Sprintf("size %d", size))
	slices.Sort(lines)
	return lines, err
}

// servable reports whether every file of the tars is still there, as the oracle
// extracted it: with links on the way, and names that come twice, a later entry
// may have put something else in its place. The oracle opens whatever is there,
// and waits for ever if that is a fifo.
func (s *StoreSide) servable(c Chain, layers []storedLayer) bool {
	for i, l := range layers {
		dir := filepath.Join(s.options.GraphRoot, s.options.GraphDriverName, l.id, "diff")
		for _, e := range c[i] {
			if e.Type == tar.TypeReg && len(e.Body) > 0 && !holds(dir, &e) {
				return false
			}
		}
	}
	return true
}

// holds reports whether the file of an entry is in the extracted layer.
func holds(root string, e *Entry) bool {
	dir, base, err := openParent(root, clean(e.Name))
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return false
	}
	b, err := io.ReadAll(f)
	return err == nil && bytes.Equal(b, e.Body)
}

// check runs upstream's check on both: ours has no finding that the oracle has
// not.
func (p *StorePair) check(layers []storedLayer) (out []Difference, _ error) {
	for _, l := range layers {
		// Below symlinks the oracle looks for files on the host, and its check then
		// finds digests instead of contents.
		if b, err := p.Oracle.diff(l); err != nil || !bytes.Equal(b, l.tar) {
			return nil, nil
		}
	}
	want, err := p.Oracle.findings()
	if err != nil {
		return nil, err
	}
	got, err := p.Ours.findings()
	if err != nil {
		return nil, err
	}
	for _, f := range got {
		if _, ok := slices.BinarySearch(want, f); !ok {
			out = append(out, Difference{Where: "store", What: "check", Want: "no such finding", Got: f})
		}
	}
	return out, nil
}

var foundTime = regexp.MustCompile(`,?mtime:0x-?[0-9a-f]+￫0x-?[0-9a-f]+`)

func (s *StoreSide) findings() ([]string, error) {
	report, err := s.Store.Check(storage.CheckEverything())
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", s.Name, err)
	}
	var out []string
	for kind, m := range map[string]map[string][]error{"layer": report.Layers, "image": report.Images, "container": report.Containers} {
		for id, errs := range m {
			for _, err := range errs {
				// Directories that no layer lists are a finding on both sides, with different times.
				text := foundTime.ReplaceAllString(err.Error(), "")
				out = append(out, fmt.Sprintf("%s %s: %s", kind, id, text))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (p *StorePair) remove(layers []storedLayer) ([]Difference, error) {
	for _, s := range []*StoreSide{p.Oracle, p.Ours} {
		images, err := s.Store.ImagesByTopLayer(layers[len(layers)-1].id)
		if err != nil {
			return nil, err
		}
		for _, i := range images {
			if _, err := s.Store.DeleteImage(i.ID, true); err != nil {
				return []Difference{{Where: "store", What: "outcome of DeleteImage on " + s.Name, Want: "success", Got: err.Error()}}, nil
			}
		}
		left, err := s.Store.Layers()
		if err != nil {
			return nil, err
		}
		if len(left) > 0 {
			return []Difference{{Where: "store", What: "layers left on " + s.Name, Want: "0", Got: fmt.Sprint(len(left))}}, nil
		}
	}
	return nil, nil
}
