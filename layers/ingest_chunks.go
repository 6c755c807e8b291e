package layers

import (
	"io"
	"math/bits"
	"sync"
)

// minBuffer is the smallest buffer of a bufferPool.
const minBuffer = 4 << 10

// bufferSize is what a buffer for size bytes takes: the next power of two.
func bufferSize(size int64) int64 {
	if size <= minBuffer {
		return minBuffer
	}
	return 1 << bits.Len64(uint64(size-1))
}

// A bufferPool keeps buffers for reuse. There are never more than the budget of a placer allows.
type bufferPool struct {
	mu   sync.Mutex
	free [32][][]byte // by the logarithm of the size
}

func (p *bufferPool) get(size int64) []byte {
	full := bufferSize(size)
	class := bits.Len64(uint64(full)) - 1
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.free[class]
	if len(list) == 0 {
		return make([]byte, size, full)
	}
	b := list[len(list)-1]
	p.free[class] = list[:len(list)-1]
	return b[:size]
}

// maxFree is how many bytes of each size a pool keeps.
const maxFree = 4 << 20

func (p *bufferPool) put(b []byte) {
	class := bits.Len64(uint64(cap(b))) - 1
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free[class])*cap(b) < maxFree {
		p.free[class] = append(p.free[class], b)
	}
}

// A chunkPipe carries the body of a large file to the worker that places it.
type chunkPipe struct {
	p      *placer
	chunks chan []byte
	gone   chan struct{} // closed when the worker reads no more
	err    error         // why the writer stopped; set before chunks is closed
	now    []byte        // chunk that is being read
	rest   []byte
}

func newChunkPipe(p *placer) *chunkPipe {
	return &chunkPipe{p: p, chunks: make(chan []byte, 4), gone: make(chan struct{})}
}

// write hands a chunk over, and returns false if the worker reads no more.
func (c *chunkPipe) write(b []byte) bool {
	select {
	case c.chunks <- b:
		return true
	case <-c.gone:
		c.p.release(b)
		return false
	}
}

// closeWriter ends the body; with an error, the reader gets it.
func (c *chunkPipe) closeWriter(err error) {
	c.err = err
	close(c.chunks)
}

// Read implements io.Reader for the worker.
func (c *chunkPipe) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		c.p.release(c.now)
		c.now = nil
		next, ok := <-c.chunks
		if !ok {
			if c.err != nil {
				return 0, c.err
			}
			return 0, io.EOF
		}
		c.now, c.rest = next, next
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// closeReader gives back what was not read.
func (c *chunkPipe) closeReader() {
	close(c.gone)
	c.p.release(c.now)
	for {
		select {
		case b, ok := <-c.chunks:
			if !ok {
				return
			}
			c.p.release(b)
		default:
			return
		}
	}
}
