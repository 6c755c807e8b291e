package layers

import (
	"fmt"
	"io"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
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

// A bufferPool keeps buffers for reuse, outside of Go's heap, where the garbage collector would keep room for them twice. All of them
// together, those in use and those at rest, take at most maxPooled.
type bufferPool struct {
	mu   sync.Mutex
	all  int64        // bytes of all buffers
	rest [32][][]byte // buffers that nobody uses, by the logarithm of the size
}

// get returns a buffer of that size, whose content is anything. The caller holds a share of the budget for it.
func (p *bufferPool) get(size int64) ([]byte, error) {
	full := bufferSize(size)
	class := bits.TrailingZeros64(uint64(full))
	p.mu.Lock()
	defer p.mu.Unlock()
	if list := p.rest[class]; len(list) > 0 {
		b := list[len(list)-1]
		p.rest[class] = list[:len(list)-1]
		return b[:size], nil
	}
	for class := range p.rest {
		for p.all+full > maxPooled && p.drop(class) {
		}
	}
	b, err := unix.Mmap(-1, 0, int(full), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("get memory: %w", err)
	}
	p.all += full
	return b[:size], nil
}

// drop gives back a buffer at rest, and returns false if there is none of the class.
func (p *bufferPool) drop(class int) bool {
	list := p.rest[class]
	if len(list) == 0 {
		return false
	}
	b := list[len(list)-1]
	p.rest[class] = list[:len(list)-1]
	p.all -= int64(cap(b))
	_ = unix.Munmap(b[:cap(b)]) // fails only if it is no mapping
	return true
}

func (p *bufferPool) put(b []byte) {
	class := bits.TrailingZeros64(uint64(cap(b)))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest[class] = append(p.rest[class], b[:cap(b)])
}

// close gives back all buffers. Those in use are lost: there are none when the workers have ended.
func (p *bufferPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for class := range p.rest {
		for p.drop(class) {
		}
	}
}

// A chunkPipe carries the body of a large file to the worker that places it.
type chunkPipe struct {
	p      *placer
	chunks chan piece
	gone   chan struct{} // closed when the worker reads no more
	err    error         // why the writer stopped; set before chunks is closed
	now    piece         // what is being read
	rest   []byte
}

func newChunkPipe(p *placer) *chunkPipe {
	return &chunkPipe{p: p, chunks: make(chan piece, 4), gone: make(chan struct{})}
}

// write hands a chunk over, and returns false if the worker reads no more.
func (c *chunkPipe) write(b piece) bool {
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
		c.now = piece{}
		next, ok := <-c.chunks
		if !ok {
			if c.err != nil {
				return 0, c.err
			}
			return 0, io.EOF
		}
		c.now, c.rest = next, next.b
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// closeReader gives back what was not read, until the writer has ended.
func (c *chunkPipe) closeReader() {
	close(c.gone)
	c.p.release(c.now)
	for b := range c.chunks {
		c.p.release(b)
	}
}
