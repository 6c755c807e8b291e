package layers

import (
	"context"
	"io"
	"sync/atomic"
)

// What a readAhead keeps in memory at most: aheadChunks times aheadSize bytes.
const (
	aheadSize   = 256 << 10
	aheadChunks = 16
)

// A readAhead reads the tar in a goroutine of its own, some way ahead of who takes it apart. What containers/storage does with
// the stream on its way to us (digests, tar-split) happens inside of the calls of Read, for an io.Pipe has no room: without
// this, either side would mostly wait for the other.
type readAhead struct {
	full  chan *aheadChunk // what was read, in order
	empty chan *aheadChunk
	ended chan struct{}
	err   error // why there is no more; set before full is closed
	now   *aheadChunk
	rest  []byte // of now
	lent  int    // bytes before rest that were lent and not passed over yet
	drop  context.CancelFunc
}

// An aheadChunk is a piece of the tar. It is filled again when nobody uses it any more.
type aheadChunk struct {
	b     []byte
	users atomic.Int32
	home  chan *aheadChunk
}

func (c *aheadChunk) release() {
	if c.users.Add(-1) == 0 {
		c.home <- c
	}
}

// newReadAhead begins to read r. Nobody else may read it until close.
func newReadAhead(ctx context.Context, r io.Reader) *readAhead {
	a := &readAhead{full: make(chan *aheadChunk, aheadChunks), empty: make(chan *aheadChunk, aheadChunks), ended: make(chan struct{})}
	for range aheadChunks {
		a.empty <- &aheadChunk{home: a.empty}
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
		var c *aheadChunk
		select {
		case c = <-a.empty:
		case <-ctx.Done():
		}
		if a.err = ctx.Err(); a.err != nil {
			return
		}
		if c.b == nil {
			c.b = make([]byte, aheadSize)
		}
		n := 0
		for n < aheadSize && a.err == nil {
			var got int
			got, a.err = r.Read(c.b[n:aheadSize])
			n += got
		}
		c.b = c.b[:n]
		c.users.Store(1)
		a.full <- c
	}
}

// advance sees that rest is not empty.
func (a *readAhead) advance() error {
	for len(a.rest) == 0 {
		if a.now != nil {
			a.now.release()
			a.now = nil
		}
		c, ok := <-a.full
		if !ok {
			return a.err
		}
		a.now, a.rest = c, c.b
	}
	return nil
}

// Read implements io.Reader. What was lent it gives out once more, but for the bytes: p keeps what it has.
func (a *readAhead) Read(p []byte) (int, error) {
	if a.lent > 0 {
		n := min(len(p), a.lent)
		a.lent -= n
		return n, nil
	}
	if err := a.advance(); err != nil {
		return 0, err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// lend returns what comes next, without a copy: between least and most bytes, or nil if one chunk does not have so many.
// The caller releases the chunk. Who takes the tar apart has to pass over these bytes with Read afterwards, as over those that nobody wants.
func (a *readAhead) lend(least, most int64) ([]byte, *aheadChunk) {
	if a.lent > 0 || a.advance() != nil || int64(len(a.rest)) < least {
		return nil, nil
	}
	b := a.rest[:min(most, int64(len(a.rest)))]
	a.rest, a.lent = a.rest[len(b):], len(b)
	a.now.users.Add(1)
	return b[:len(b):len(b)], a.now
}

// close returns when nothing reads any more. What was read ahead is lost.
func (a *readAhead) close() {
	a.drop()
	<-a.ended
}
