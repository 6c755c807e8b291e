package index

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"io"
	"os"
)

// A source is a list or run that takes part in a merge, with the sign of its counts.
type source struct {
	*keyed
	sign int32
	at   int
}

type sources []*source

func (s sources) Len() int           { return len(s) }
func (s sources) Less(i, j int) bool { return s[i].key(s[i].at) < s[j].key(s[j].at) }
func (s sources) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *sources) Push(x any)        { *s = append(*s, x.(*source)) }
func (s *sources) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}

// merge calls emit for each key of the inputs in order, with the sum of its counts where that is not zero.
func merge(inputs []*source, emit func(Key, int32) error) error {
	var queue sources
	for _, in := range inputs {
		if in.n > 0 {
			queue = append(queue, in)
		}
	}
	heap.Init(&queue)
	for len(queue) > 0 {
		key, sum := queue[0].key(queue[0].at), int32(0)
		for len(queue) > 0 && queue[0].key(queue[0].at) == key {
			top := queue[0]
			sum += top.sign * top.count(top.at)
			if top.at++; top.at == top.n {
				heap.Pop(&queue)
			} else {
				heap.Fix(&queue, 0)
			}
		}
		if sum == 0 {
			continue
		}
		if err := emit(key, sum); err != nil {
			return err
		}
	}
	return nil
}

// writeRun writes the merge of the inputs to f and returns the number of its entries. The counts come behind the keys,
// so they wait in memory: four bytes for each entry.
func writeRun(f *os.File, inputs []*source) (int, error) {
	w := bufio.NewWriterSize(f, 1<<16)
	if _, err := w.Write(appendHeader(nil, runMagic, 0)); err != nil {
		return 0, err
	}
	var counts, scratch []byte
	n := 0
	err := merge(inputs, func(k Key, count int32) error {
		n++
		counts = binary.LittleEndian.AppendUint32(counts, uint32(count))
		scratch = binary.LittleEndian.AppendUint64(scratch[:0], uint64(k))
		_, err := w.Write(scratch)
		return err
	})
	if err != nil {
		return 0, err
	}
	if _, err := w.Write(counts); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(appendHeader(nil, runMagic, n), 0); err != nil {
		return 0, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	return n, nil
}
