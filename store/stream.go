package store

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// chunkSize is how much of a large file is in memory at a time, in bytes; a stream uses three chunks.
const chunkSize = 1 << 20

// uncounted is how much of a stream is not written ahead, in bytes, before it is known whether the repository has the file: what is written is
// dropped then.
const uncounted = earlyBytes

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// PutStream places a large regular file, which is written while it is hashed. A body that is not size bytes long is an
// error.
func (s *Stage) PutStream(dir int, name string, f File, size int64, body io.Reader) (Placed, error) {
	if err := checkName(name); err != nil {
		return Placed{}, err
	}
	it, err := s.item(&f, size)
	if err != nil {
		return Placed{}, err
	}
	if it.header.Mode&unix.S_IFMT != unix.S_IFREG {
		return Placed{}, placeError("write", name, unix.EINVAL)
	}
	sum, err := it.header.NewHash()
	if err != nil {
		return Placed{}, fmt.Errorf("hash %q: %w", name, err)
	}
	fd, err := s.r.disk.create(dir, name, it.header.Mode&0o777)
	if err != nil {
		return Placed{}, placeError("create", name, err)
	}
	if err = s.pour(fd, sum, size, body); err != nil {
		err = fmt.Errorf("write %q: %w", name, err)
	}
	sum.Sum(it.sum[:0])
	it.open = fd
	var p Placed
	if err == nil {
		p, err = s.place(dir, name, it)
	}
	let := s.let
	if p.Mode == Created || p.Mode == Single {
		s.wrote(min(size, uncounted))
	} else { // there is a link in its place: what was written need not reach the disk
		let = unix.Close
	}
	if err = errors.Join(err, let(fd)); err != nil {
		s.r.disk.remove(dir, name)
		return Placed{}, err
	}
	return p, nil
}

// pour writes size bytes of body into a new file while another goroutine hashes them.
func (s *Stage) pour(fd int, sum hash.Hash, size int64, body io.Reader) error {
	type part struct {
		b *[]byte
		n int
	}
	full, empty := make(chan part, 2), make(chan *[]byte, 3)
	for range cap(empty) {
		empty <- chunks.Get().(*[]byte)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range full {
			sum.Write((*p.b)[:p.n])
			empty <- p.b
		}
	}()
	err := func() error {
		defer close(full)
		for off := int64(0); off < size; {
			b := <-empty
			n, err := io.ReadFull(body, (*b)[:min(int64(len(*b)), size-off)])
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			full <- part{b, n} // hashed even if the write fails: the buffer comes back that way
			if err != nil {
				return err
			}
			if err := writeHoles(fd, (*b)[:n], off, size); err != nil {
				return err
			}
			off += int64(n)
			if off > uncounted {
				s.wrote(int64(n))
			}
		}
		return nil
	}()
	<-done
	for range cap(empty) {
		chunks.Put(<-empty)
	}
	return err
}
