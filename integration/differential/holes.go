package differential

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Long runs of zeros are promised to be holes: those of whole blocks and so many
// bytes, within pieces of the file as they are read from a tar.
const (
	holeBlock = 4 << 10
	holeRun   = 32 << 10
	holePiece = 256 << 10
)

var zeros = strings.Repeat("\x00", holeBlock)

// span is a part of a file, in bytes.
type span struct{ start, end int64 }

// zeroRuns finds the long runs of zeros in what is written to it.
type zeroRuns struct {
	at    int64 // of what comes next
	dirty bool  // the current block has something else than zeros
	start int64 // of the run of zero blocks that ends here
	runs  []span
}

func (z *zeroRuns) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), holeBlock-int(z.at%holeBlock))
		z.dirty = z.dirty || string(rest[:n]) != zeros[:n]
		rest = rest[n:]
		if z.at += int64(n); z.at%holeBlock != 0 {
			break
		}
		if z.dirty {
			z.cut(z.at - holeBlock)
			z.start = z.at
		} else if z.at%holePiece == 0 {
			z.cut(z.at)
			z.start = z.at
		}
		z.dirty = false
	}
	return len(b), nil
}

// cut ends the run of zero blocks at an offset.
func (z *zeroRuns) cut(end int64) {
	if end-z.start >= holeRun {
		z.runs = append(z.runs, span{z.start, end})
	}
}

// end returns the runs that were found.
func (z *zeroRuns) end() []span {
	z.cut(z.at - z.at%holeBlock)
	return z.runs
}

// readHoles asks the filesystem where the file has holes, and which of the runs
// are none.
func (n *Node) readHoles(fd int, runs []span) error {
	var data []span
	for at := int64(0); at < n.Size; {
		start, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		if err != nil {
			return fmt.Errorf("find the data of %q: %w", n.Path, err)
		}
		if at, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("find the holes of %q: %w", n.Path, err)
		}
		data = append(data, span{start, at})
	}
	n.Hole = n.Size
	for _, d := range data {
		n.Hole -= d.end - d.start
		for _, r := range runs {
			n.Dense += max(0, min(d.end, r.end)-max(d.start, r.start))
		}
	}
	n.Hole -= n.Hole % holeBlock
	return nil
}
