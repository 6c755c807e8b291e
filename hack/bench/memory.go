package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
)

// memory measures the peak of this process over a pull. With the driver upstreamOnly it is containers/storage's own.
func (j *job) memory(m *meter, set *fixtures.Set, files int) error {
	list, err := images(set, "full")
	if err != nil {
		return err
	}
	st, err := j.open("memory")
	if err != nil {
		return err
	}
	if err := st.put(list[0], ""); err != nil {
		return err
	}
	peak, err := peakMemory()
	if err != nil {
		return err
	}
	m.value("peak memory of putting the image", "MB", float64(peak)/1e6)
	if files > 0 {
		r, w := io.Pipe()
		go func() { w.CloseWithError(manyFiles(w, files)) }()
		began := time.Now()
		if _, _, err := st.PutLayer("many", "", nil, "", false, nil, r); err != nil {
			return err
		}
		m.timed(fmt.Sprintf("put a layer of %d files", files), time.Since(began))
		if peak, err = peakMemory(); err != nil {
			return err
		}
		m.value(fmt.Sprintf("peak memory of putting a layer of %d files", files), "MB", float64(peak)/1e6)
	}
	_, err = st.Shutdown(false)
	return err
}

// manyFiles writes a layer tar of n small files, each with a content and nearly each with a time of its own, in directories of 100.
func manyFiles(to io.Writer, n int) error {
	b := bufio.NewWriterSize(to, 1<<20)
	w := tar.NewWriter(b)
	for i := range n {
		if i%100 == 0 {
			h := &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/share/dir%06d/", i/100), Mode: 0o755, ModTime: time.Unix(1600000000, 0)}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		body := fmt.Sprint("content of file ", i)
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/dir%06d/some-file-%d.txt", i/100, i), Mode: 0o644,
			Size: int64(len(body)), ModTime: time.Unix(int64(1e9+i*7%1_000_000), 0),
		}
		if err := errors.Join(w.WriteHeader(h), second(io.WriteString(w, body))); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), b.Flush())
}
