package layers

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"
)

func TestReadAheadGivesAllAndTheError(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than is kept
	for name, r := range map[string]io.Reader{
		"whole":         bytes.NewReader(want),
		"parts":         iotest.HalfReader(bytes.NewReader(want)),
		"end with data": iotest.DataErrReader(bytes.NewReader(want)),
	} {
		a := newReadAhead(t.Context(), r)
		got, err := io.ReadAll(a)
		a.close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(want), err)
		}
	}
	broken := errors.New("broken")
	a := newReadAhead(t.Context(), io.MultiReader(bytes.NewReader(want), iotest.ErrReader(broken)))
	defer a.close()
	got, err := io.ReadAll(a)
	if !errors.Is(err, broken) || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}

// After close, the reader is the caller's again.
func TestReadAheadCloses(t *testing.T) {
	r := slowReader{begun: make(chan struct{}), end: make(chan struct{})}
	a := newReadAhead(t.Context(), r)
	closed := make(chan struct{})
	<-r.begun
	go func() { a.close(); close(closed) }()
	select {
	case <-closed:
		t.Fatal("closed beside a Read")
	case <-time.After(10 * time.Millisecond):
	}
	close(r.end)
	<-closed

	endless := newReadAhead(t.Context(), endlessReader{})
	if _, err := io.ReadFull(endless, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	endless.close() // although nobody makes room
}

// A slowReader's only Read lasts until end is closed.
type slowReader struct{ begun, end chan struct{} }

func (r slowReader) Read([]byte) (int, error) {
	close(r.begun)
	<-r.end
	return 0, io.EOF
}

type endlessReader struct{}

func (endlessReader) Read(b []byte) (int, error) { return len(b), nil }
