package layers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
)

// minLent is the least that is worth a piece of its own, in bytes.
const minLent = 16 << 10

// A piece is a part of a file's body in memory: lent by the readAhead, or in a buffer of the pool.
type piece struct {
	b     []byte
	chunk *aheadChunk // nil for a buffer of the pool
}

// A tarBody is the body of the entry that the reader of the tar has come to.
type tarBody struct {
	r     io.Reader
	ahead *readAhead // nil if what r gives is not what the tar has
}

// bodyOf returns the body of an entry. That of a sparse file has holes that the tar has not.
func bodyOf(hdr *tar.Header, r io.Reader, ahead *readAhead) tarBody {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return tarBody{r: r}
		}
	}
	return tarBody{r, ahead}
}

// read takes between least and most bytes of a body.
func (p *placer) read(body tarBody, least, most int64) (piece, error) {
	if most == 0 {
		return piece{}, nil
	}
	if body.ahead != nil {
		if b, chunk := body.ahead.lend(least, most); b != nil {
			if _, err := io.CopyN(io.Discard, body.r, int64(len(b))); err != nil {
				chunk.release()
				return piece{}, cutShort(err)
			}
			return piece{b, chunk}, nil
		}
	}
	if err := p.budget.Acquire(p.ctx, bufferSize(most)); err != nil {
		return piece{}, p.cause(err)
	}
	b, err := p.bufs.get(most)
	if err != nil {
		p.budget.Release(bufferSize(most))
		return piece{}, err
	}
	if _, err := io.ReadFull(body.r, b); err != nil {
		p.release(piece{b: b})
		return piece{}, cutShort(err)
	}
	return piece{b: b}, nil
}

// release ends the use of a piece.
func (p *placer) release(b piece) {
	switch {
	case b.chunk != nil:
		b.chunk.release()
	case b.b != nil:
		n := int64(cap(b.b))
		p.bufs.put(b.b)
		p.budget.Release(n)
	}
}

// cutShort is for a body that ends before its size.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read the body: %w", err)
}
