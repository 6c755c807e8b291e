package layers

import (
	"context"
	"sync"

	"github.com/ostree-storage/ostree-storage/store"
	"golang.org/x/sync/semaphore"
)

const (
	// maxWhole is the largest file that is read into memory before anything is written: hashed there, a known file costs one link.
	maxWhole = 8 << 20
	// chunkSize is how larger files reach a worker.
	chunkSize = 256 << 10
	// maxInFlight bounds the memory for bodies.
	maxInFlight = 32 << 20
	// maxPooled bounds it with the buffers at rest: with room for the other sizes, none is given back only to be asked for again.
	maxPooled = 2 * maxInFlight
	// maxBatch and batchBytes bound what one worker gets at once, in files and in bytes.
	maxBatch   = 16
	batchBytes = 128 << 10
	// maxQueue bounds how many batches wait for a worker, and so how many directories they keep open.
	maxQueue = 8
)

// A placement is one file for a worker.
type placement struct {
	name   string
	entry  string // name in the tar
	file   store.File
	to     *inode
	body   piece // of a file that is in memory
	size   int64
	stream *chunkPipe // of a larger one
}

// A batch is what one worker places: files of one directory, which lie side by side in most tars, so that it is opened once for all of
// them and workers seldom wait for each other's changes of one directory.
type batch struct {
	dir   *treeDir
	files []placement
	bytes int
	chunk *aheadChunk // of the first body that is lent
}

// A placer is a pool of workers that put files into a stage.
type placer struct {
	stage  *store.Stage
	dirs   *treeDirs
	fail   func(entry string, err error) error
	cancel context.CancelFunc
	ctx    context.Context
	tasks  chan *batch
	spare  chan *batch // for reuse
	next   *batch      // what the reader of the tar has not handed over yet, or nil
	budget *semaphore.Weighted
	bufs   bufferPool
	busy   sync.WaitGroup // batches that are not placed yet
	done   sync.WaitGroup // workers

	mu   sync.Mutex
	err  error
	kept map[*inode]store.Time // times that the filesystem stores otherwise
}

// newPlacer starts the workers. fail makes an error name the entry.
func newPlacer(ctx context.Context, stage *store.Stage, dirs *treeDirs, fail func(string, error) error) *placer {
	p := &placer{stage: stage, dirs: dirs, fail: fail, budget: semaphore.NewWeighted(maxInFlight)}
	p.tasks, p.spare = make(chan *batch, maxQueue), make(chan *batch, maxQueue)
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.kept = make(map[*inode]store.Time)
	for range hands() {
		p.done.Add(1)
		go p.work()
	}
	return p
}

// whole queues a file of a directory whose body is in memory or that has none. The body goes back to the pool, on error too.
func (p *placer) whole(dir nodeID, t placement) error {
	if err := p.begin(dir); err != nil {
		p.release(t.body)
		return err
	}
	b := p.next
	b.files, b.bytes = append(b.files, t), b.bytes+len(t.body.b)
	if b.chunk == nil {
		b.chunk = t.body.chunk
	}
	far := t.body.chunk != nil && t.body.chunk != b.chunk                              // the reader of the tar needs its chunks back
	if len(b.files) == maxBatch || b.bytes >= batchBytes || far || len(p.tasks) == 0 { // or workers wait already
		p.flush()
	}
	return nil
}

// begin sees that next is a batch of the directory.
func (p *placer) begin(dir nodeID) error {
	if p.next != nil && p.next.dir.id == dir {
		return nil
	}
	p.flush()
	d, err := p.dirs.get(dir)
	if err != nil {
		return err
	}
	select {
	case p.next = <-p.spare:
	default:
		p.next = &batch{files: make([]placement, 0, maxBatch)}
	}
	p.next.dir = d
	return nil
}

// flush hands over the next batch, if there is any.
func (p *placer) flush() {
	if p.next != nil {
		p.busy.Add(1)
		p.tasks <- p.next
		p.next = nil
	}
}

// feed queues a large file and copies its body to the worker.
func (p *placer) feed(dir nodeID, t placement, r tarBody) error {
	t.stream = newChunkPipe(p)
	if err := p.whole(dir, t); err != nil {
		return err
	}
	p.flush()
	for left := t.size; left > 0; {
		b, err := p.read(r, min(left, minLent), min(left, chunkSize))
		if err != nil {
			t.stream.closeWriter(err)
			return err
		}
		left -= int64(len(b.b))
		if !t.stream.write(b) {
			break // the worker gave up; its error comes with drain
		}
	}
	t.stream.closeWriter(nil)
	return p.failed()
}

func (p *placer) work() {
	defer p.done.Done()
	for b := range p.tasks {
		for i := range b.files {
			t := &b.files[i]
			if p.failed() == nil {
				if err := p.put(b.dir.fd, t); err != nil {
					p.stop(p.fail(t.entry, err))
				}
			}
			if t.stream != nil {
				t.stream.closeReader()
			}
			p.release(t.body)
		}
		p.recycle(b)
		p.busy.Done()
	}
}

// recycle ends a batch.
func (p *placer) recycle(b *batch) {
	b.dir.release()
	clear(b.files)
	b.files, b.bytes, b.chunk = b.files[:0], 0, nil
	select {
	case p.spare <- b:
	default:
	}
}

func (p *placer) put(dir int, t *placement) error {
	var placed store.Placed
	var err error
	if t.stream != nil {
		placed, err = p.stage.PutStream(dir, t.name, t.file, t.size, t.stream)
	} else {
		placed, err = p.stage.PutFile(dir, t.name, t.file, t.body.b)
	}
	if err != nil {
		return err
	}
	p.record(t.to, t.file.MTime, placed)
	return nil
}

// record keeps what Publish will want to know.
func (p *placer) record(i *inode, want store.Time, placed store.Placed) {
	i.sum, i.lane, i.placed = placed.Checksum, placed.Lane, placed.Mode
	p.mu.Lock()
	defer p.mu.Unlock()
	if placed.MTime != want {
		p.kept[i] = placed.MTime
	} else if len(p.kept) > 0 {
		delete(p.kept, i)
	}
}

// placed is what was recorded of an inode, after drain; its number on disk is not.
func (p *placer) placed(i *inode, kind nodeKind) store.Placed {
	t, ok := p.kept[i]
	if !ok {
		t = i.mtime()
	}
	placed := store.Placed{Checksum: i.sum, MTime: t, Lane: i.lane, Mode: i.placed}
	if kind == kindFile {
		placed.Size = int64(i.val)
	}
	return placed
}

// stop keeps the first error and makes everything end soon.
func (p *placer) stop(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.cancel()
	}
}

// failed returns the first error of a worker.
func (p *placer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// cause prefers a worker's error to the cancellation that it caused.
func (p *placer) cause(err error) error {
	if first := p.failed(); first != nil {
		return first
	}
	return err
}

// drain waits until all queued files are placed.
func (p *placer) drain() error {
	p.flush()
	p.busy.Wait()
	return p.failed()
}

// close ends the workers.
func (p *placer) close() {
	p.cancel()
	p.stop(context.Canceled) // what is still in hand is dropped
	p.flush()
	close(p.tasks)
	p.done.Wait()
	p.bufs.close()
}
