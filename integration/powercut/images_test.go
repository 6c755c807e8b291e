package powercut_test

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// writeImages makes n small images over a real one: each has files of its own, files that others have as well, with the same and with
// other times, and hardlinks.
func writeImages(t *testing.T, dir string, base fixtures.Image, n int) []fixtures.Image {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var images []fixtures.Image
	for i := range n {
		top := filepath.Join(dir, fmt.Sprintf("layer%d.tar", i))
		if err := writeLayer(top, i); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("image%d", i)
		img, err := fixtures.WriteLayout(filepath.Join(dir, name), fixtures.Spec{
			Name: name, Created: time.Unix(1790000000, 0), Cmd: []string{"/bin/busybox", "true"},
			Tars: append(tars(base), top),
		})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	return images
}

func tars(i fixtures.Image) []string {
	var list []string
	for _, l := range i.Layers {
		list = append(list, l.Tar)
	}
	return list
}

func writeLayer(path string, i int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	// Directories are listed: containers/storage's check takes an implied one for its first file.
	for _, d := range []string{"srv/", "srv/d0/", "srv/d1/", "srv/d2/", "srv/d3/", "srv/d4/", "srv/d5/", "srv/d6/"} {
		h := &tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1700000000, 0)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	own, shared := rand.New(rand.NewPCG(uint64(i), 1)), rand.New(rand.NewPCG(99, 1))
	for k := range 60 {
		rnd, when := shared, int64(1700000000)
		switch k % 3 {
		case 0:
			rnd = own
		case 1:
			when += int64(i)
		}
		text := make([]byte, 1+rnd.IntN(20000))
		for b := range text {
			text[b] = byte(rnd.Uint32())
		}
		h := &tar.Header{Name: fmt.Sprintf("srv/d%d/f%d", k%7, k), Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(when, 5)}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		if k%10 == 0 {
			l := &tar.Header{Name: h.Name + ".again", Typeflag: tar.TypeLink, Linkname: h.Name, Mode: 0o644, ModTime: h.ModTime}
			if err := w.WriteHeader(l); err != nil {
				return err
			}
		}
	}
	return w.Close()
}
