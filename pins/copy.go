package pins

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"
)

// chain returns the layers of an image that the pinned store does not have itself, base first. The error matches ErrDamaged if one is
// missing.
func chain(main, own storage.Store, image *storage.Image) ([]*storage.Layer, error) {
	var out []*storage.Layer
	for id := image.TopLayer; id != ""; {
		if l, err := own.Layer(id); err == nil && !l.ReadOnly {
			break // with all of its ancestors
		}
		l, err := main.Layer(id)
		if err != nil {
			return nil, fmt.Errorf("image %s: layer %s: %w: %w", short(image.ID), short(id), ErrDamaged, err)
		}
		out = append(out, l)
		id = l.Parent
	}
	slices.Reverse(out)
	return out, nil
}

// copyImage makes an image of the main store one of the pinned store. What is there already is left as it is.
func (s *Store) copyImage(ctx context.Context, main storage.Store, image *storage.Image) error {
	missing, err := chain(main, s.own, image)
	if err != nil {
		return err
	}
	if err := s.announce(image, missing); err != nil {
		return err
	}
	if err := s.copyLayers(ctx, main, missing); err != nil {
		return err
	}
	if err := s.copyRecord(main, image); err != nil {
		return fmt.Errorf("copy the record of image %s: %w", short(image.ID), err)
	}
	return nil
}

// announce says before anything is written what it will cost, unless that is next to nothing, and refuses what has no room.
func (s *Store) announce(image *storage.Image, missing []*storage.Layer) error {
	how, err := sharingOf(s.o.Main.GraphRoot, s.o.Path)
	if err != nil || how == ByLink || len(missing) == 0 {
		return err
	}
	var size int64
	for _, l := range missing {
		size += l.UncompressedSize
	}
	if how == ByClone {
		s.o.Message(fmt.Sprintf("%s and %s are not on one mount, but on one filesystem: image %s is reflinked, an inode for each file", s.o.Main.GraphRoot, s.o.Path, short(image.ID)))
		return nil
	}
	s.o.Message(fmt.Sprintf("%s and %s are not on one mount: image %s is copied, %d MB", s.o.Main.GraphRoot, s.o.Path, short(image.ID), size/1e6))
	var st unix.Statfs_t
	if err := unix.Statfs(s.o.Path, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < size {
		return fmt.Errorf("%s has %d MB free and image %s needs up to %d MB: %w", s.o.Path, free/1e6, short(image.ID), size/1e6, unix.ENOSPC)
	}
	return nil
}

// copyLayer applies a layer's tar, which comes out of the main store bit by bit as it went in. The driver hashes it and links what the
// main store's repository has.
func (s *Store) copyLayer(main storage.Store, l *storage.Layer) error {
	if _, bad := l.Flags["incomplete"]; bad {
		return fmt.Errorf("it is incomplete: %w", ErrDamaged)
	}
	o := &storage.LayerOptions{
		IDMappingOptions: storage.LayerIDMappingOptions{
			HostUIDMapping: len(l.UIDMap) == 0, HostGIDMapping: len(l.GIDMap) == 0, UIDMap: l.UIDMap, GIDMap: l.GIDMap,
		},
		UncompressedDigest: l.UncompressedDigest,
		Flags:              l.Flags,
	}
	if l.CompressedDigest != "" && l.UncompressedDigest != "" {
		o.OriginalDigest, o.OriginalSize = l.CompressedDigest, &l.CompressedSize
	}
	for _, key := range l.BigDataNames {
		data, err := main.LayerBigData(l.ID, key)
		if err != nil {
			return fmt.Errorf("read %q of it: %w: %w", key, ErrDamaged, err)
		}
		defer data.Close()
		o.BigData = append(o.BigData, storage.LayerBigDataOption{Key: key, Data: data})
	}
	// From here on until it is closed the main store's layers are locked.
	uncompressed := archive.Uncompressed
	diff, err := main.Diff("", l.ID, &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		return fmt.Errorf("read it: %w: %w", ErrDamaged, err)
	}
	defer diff.Close()
	exact := &exactReader{r: diff, want: l.UncompressedDigest}
	stream, stop := packed(exact, l.CompressionType)
	defer stop()
	if _, _, err := s.own.PutLayer(l.ID, l.Parent, l.Names, l.MountLabel, false, o, stream); err != nil {
		if exact.err != nil && !errors.Is(err, exact.err) {
			err = exact.err
		}
		return err
	}
	if l.Metadata != "" {
		return s.own.SetMetadata(l.ID, l.Metadata)
	}
	return nil
}

// An exactReader reads what has to have a digest, and fails at the end if it has another.
type exactReader struct {
	r    io.Reader
	want digest.Digest // "" for any
	sum  digest.Digester
	err  error
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.sum == nil {
		e.sum = digest.Canonical.Digester()
	}
	n, err := e.r.Read(p)
	e.sum.Hash().Write(p[:n])
	switch {
	case errors.Is(err, io.EOF):
		if got := e.sum.Digest(); e.want != "" && got != e.want {
			err = fmt.Errorf("its content has the digest %s and should have %s: %w", got, e.want, ErrDamaged)
			e.err = err
		}
	case err != nil:
		err = fmt.Errorf("read it: %w: %w", ErrDamaged, err)
		e.err = err
	}
	return n, err
}

// packed wraps a tar in the kind of compression that the record names, so that the new record names it as well. It compresses nothing
// much: nobody keeps the result.
func packed(r io.Reader, kind archive.Compression) (_ io.Reader, stop func()) {
	if kind != archive.Gzip && kind != archive.Zstd {
		return r, func() {}
	}
	pr, pw := io.Pipe()
	go func() {
		var w io.WriteCloser
		var err error
		if kind == archive.Gzip {
			w, err = gzip.NewWriterLevel(pw, gzip.NoCompression)
		} else {
			w, err = zstd.NewWriter(pw, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		}
		if err == nil {
			if _, err = io.Copy(w, r); err == nil {
				err = w.Close()
			}
		}
		pw.CloseWithError(err)
	}()
	return pr, func() {
		pr.Close()
		io.Copy(io.Discard, pr)
	}
}

// copyRecord makes the image's record and big data in the pinned store, or adds what an earlier copy lacks.
func (s *Store) copyRecord(main storage.Store, image *storage.Image) error {
	old, err := s.own.Image(image.ID)
	exists := err == nil && !old.ReadOnly
	o := &storage.ImageOptions{
		CreationDate: image.Created, Digest: image.Digest, Digests: image.Digests, Metadata: image.Metadata,
		NamesHistory: image.NamesHistory, Flags: image.Flags,
	}
	for _, key := range image.BigDataNames {
		text, err := main.ImageBigData(image.ID, key)
		if err != nil {
			return fmt.Errorf("read %q: %w: %w", key, ErrDamaged, err)
		}
		want := image.BigDataDigests[key]
		if isDigestOf(key, want) && digest.FromBytes(text) != want {
			return fmt.Errorf("%q is not what its digest says: %w", key, ErrDamaged)
		}
		if !exists {
			o.BigData = append(o.BigData, storage.ImageBigDataOption{Key: key, Data: text, Digest: want})
			continue
		}
		if there, err := s.own.ImageBigData(image.ID, key); err == nil && bytes.Equal(there, text) {
			continue
		}
		if err := s.own.SetImageBigData(image.ID, key, text, func([]byte) (digest.Digest, error) { return want, nil }); err != nil {
			return err
		}
	}
	if exists {
		return nil
	}
	_, err = s.own.CreateImage(image.ID, s.freeNames(image), image.TopLayer, image.Metadata, o)
	return err
}

// freeNames are an image's names if no pinned image has one of them. Names that have to move come later, all at once.
func (s *Store) freeNames(image *storage.Image) []string {
	for _, name := range image.Names {
		if _, err := s.own.Lookup(name); err == nil {
			return nil
		}
	}
	return image.Names
}

// isDigestOf reports whether a recorded digest is that of the bytes: that of an old signed manifest is not.
func isDigestOf(key string, d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.Canonical && !strings.HasPrefix(key, "manifest") && key != storage.ImageDigestBigDataKey
}
