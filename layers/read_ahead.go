package layers

import (
	"context"
	"io"
)

// What a readAhead keeps in memory at most: aheadChunks times aheadSize bytes.
const (
	aheadSize   = 128 << 10
	aheadChunks = 16
)

// A readAhead reads the tar in a goroutine of its own, some way ahead of who takes it apart. What containers/storage does with
// the stream on its way to us (digests, tar-split) happens inside of the calls of Read, for an io.Pipe has no room: without
// this, either side would mostly wait for the other.
type readAhead struct {
	full  chan []byte // what was read, in order
	empty chan []byte
	ended chan struct{}
	err   error // why there is no more; set before full is closed
	now   []byte
	rest  []byte // of now
	drop  context.CancelFunc
}

// newReadAhead begins to read r. Nobody else may read it until close.
func newReadAhead(ctx context.Context, r io.Reader) *readAhead {
	a := &readAhead{full: make(chan []byte, aheadChunks), empty: make(chan []byte, aheadChunks), ended: make(chan struct{})}
	for range aheadChunks {
		a.empty <- nil
	}
	ctx, a.drop = context.WithCancel(ctx)
	go a.fill(ctx, r)
	return a
}

// fill reads until the end, an error or the end of the context.
func (a *readAhead) fill(ctx context.Context, r io.Reader) {
	defer close(a.ended)
	defer close(a.full)
	for a.err == nil {
		var b []byte
		select {
		case b = <-a.empty:
		case <-ctx.Done():
		}
		if a.err = ctx.Err(); a.err != nil {
			return
		}
		if b == nil {
			b = make([]byte, aheadSize)
		}
		n := 0
		for n < len(b) && a.err == nil {
			var got int
			got, a.err = r.Read(b[n:cap(b)])
			n += got
		}
		a.full <- b[:n]
	}
}

// Read implements io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now != nil {
			a.empty <- a.now[:cap(a.now)]
			a.now = nil
		}
		b, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.now, a.rest = b, b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close returns when nothing reads any more. What was read ahead is lost.
func (a *readAhead) close() {
	a.drop()
	<-a.ended
}
