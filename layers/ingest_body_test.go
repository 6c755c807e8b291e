package layers

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/semaphore"
)

// Bodies that are lent are those of the tar, whatever the sizes, and stay so until they are given back, while the tar is read on.
func TestBodiesAreLent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var sizes []int
	for range 400 {
		sizes = append(sizes, rng.IntN(2<<rng.IntN(18)), 512*rng.IntN(3))
	}
	data := make([]byte, 1<<19)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	bodyAt := func(i int) []byte { return data[i*7 : i*7+sizes[i]] }
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range sizes {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), Size: int64(sizes[i]), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bodyAt(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	in := newReadAhead(t.Context(), &b)
	defer in.close()
	p := &placer{ctx: t.Context(), budget: semaphore.NewWeighted(maxInFlight)}
	defer p.bufs.close()
	type held struct {
		piece
		want []byte
	}
	var hold []held
	lent := 0
	giveBack := func() {
		h := hold[0]
		hold = hold[1:]
		if !bytes.Equal(h.b, h.want) {
			t.Errorf("%d bytes changed while they were in use, or are others", len(h.b))
		}
		p.release(h.piece)
	}
	tr := tar.NewReader(in)
	for i := range sizes {
		hdr, err := tr.Next()
		if err != nil || hdr.Name != fmt.Sprint(i) {
			t.Fatalf("entry %d: %v, %v", i, hdr, err)
		}
		for done := 0; done < sizes[i]; {
			got, err := p.read(bodyOf(hdr, tr, in), int64(min(sizes[i]-done, minLent)), int64(sizes[i]-done))
			if err != nil || len(got.b) == 0 {
				t.Fatalf("entry %d: %d bytes, %v", i, len(got.b), err)
			}
			if got.chunk != nil {
				lent++
			}
			hold = append(hold, held{got, bodyAt(i)[done : done+len(got.b)]})
			done += len(got.b)
			if rng.IntN(4) == 0 {
				i := rng.IntN(len(hold))
				hold[0], hold[i] = hold[i], hold[0]
			}
			for len(hold) > aheadChunks/2 {
				giveBack()
			}
		}
	}
	for len(hold) > 0 {
		giveBack()
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Errorf("after the last entry: %v", err)
	}
	if lent < len(sizes)/2 {
		t.Errorf("%d of %d bodies were lent", lent, len(sizes))
	}
}
