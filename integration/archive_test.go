package integration_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tarListing is one line for each entry of a tar file: all that a program could see, and a checksum of the content.
func tarListing(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return sorted(strings.Join(lines, "\n"))
		}
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		when := h.ModTime.Unix()
		if strings.HasPrefix(h.Name, "churn") || !pastTime(h) { // made by the container itself: at another second in each store
			when = 0
		}
		attributes := []string{}
		for k, v := range h.PAXRecords {
			if strings.HasPrefix(k, "SCHILY.xattr.") {
				attributes = append(attributes, fmt.Sprintf("%s=%q", k, v))
			}
		}
		lines = append(lines, fmt.Sprintf("%q %c %o %d:%d %d %s %d,%d %d %s %s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname,
			h.Devmajor, h.Devminor, when, hex.EncodeToString(sum.Sum(nil)[:8]), sorted(strings.Join(attributes, "\n"))))
	}
}

// pastTime says whether an entry's time comes from the image and not from this run.
func pastTime(h *tar.Header) bool { return h.ModTime.Year() < 2026 || h.ModTime.Month() < 10 }

// readArchive checks that every blob of an OCI archive is what its name says, and that the layers decompress to the
// DiffIDs of the configuration, which it gives.
func readArchive(t *testing.T, path string) []string {
	t.Helper()
	blobs := map[string][]byte{}    // small ones, by digest
	contents := map[string]string{} // digest to the DiffID
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var top []byte
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		name, isBlob := strings.CutPrefix(h.Name, "blobs/sha256/")
		switch {
		case h.Name == "index.json":
			if top, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		case isBlob && h.Typeflag == tar.TypeReg:
			blobs[name], contents[name] = readBlob(t, name, r)
		}
	}
	return diffIDs(t, top, blobs, contents)
}

// readBlob hashes one blob as it is and uncompressed.
func readBlob(t *testing.T, name string, r io.Reader) (head []byte, diffID string) {
	t.Helper()
	raw, plain := sha256.New(), sha256.New()
	in := io.TeeReader(r, raw)
	var keep bytes.Buffer
	first := make([]byte, 2)
	n, err := io.ReadFull(in, first)
	if err != nil {
		t.Fatalf("blob %s: %v", name, err)
	}
	in = io.MultiReader(bytes.NewReader(first[:n]), in)
	if first[0] == 0x1f && first[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			t.Fatalf("blob %s: %v", name, err)
		}
		_, err = io.Copy(plain, z)
		if err != nil {
			t.Fatalf("blob %s: %v", name, err)
		}
	} else if _, err := io.Copy(io.MultiWriter(plain, &limited{&keep, 1 << 20}), in); err != nil {
		t.Fatalf("blob %s: %v", name, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(raw.Sum(nil)); got != name {
		t.Errorf("blob %s has the digest %s", name, got)
	}
	return keep.Bytes(), "sha256:" + hex.EncodeToString(plain.Sum(nil))
}

// limited keeps the first bytes of what is written to it.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func diffIDs(t *testing.T, top []byte, blobs map[string][]byte, contents map[string]string) []string {
	t.Helper()
	type blob struct{ Digest string }
	var index struct{ Manifests []blob }
	var manifest struct {
		Config blob
		Layers []blob
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode := func(text []byte, v any) {
		if err := json.Unmarshal(text, v); err != nil {
			t.Fatalf("decode %.200s: %v", text, err)
		}
	}
	decode(top, &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("the archive holds %d images", len(index.Manifests))
	}
	decode(blobs[strings.TrimPrefix(index.Manifests[0].Digest, "sha256:")], &manifest)
	decode(blobs[strings.TrimPrefix(manifest.Config.Digest, "sha256:")], &config)
	for n, l := range manifest.Layers {
		if got := contents[strings.TrimPrefix(l.Digest, "sha256:")]; got != config.RootFS.DiffIDs[n] {
			t.Errorf("layer %d decompresses to %s, its DiffID is %s", n, got, config.RootFS.DiffIDs[n])
		}
	}
	return config.RootFS.DiffIDs
}

// freeAfterSync is how many bytes the filesystem has left once everything is written out.
func freeAfterSync(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}
