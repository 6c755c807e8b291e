package layers

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
)

// A segmentLayer is a line of a segment's list: what a layer was when the segment was made. The stamps are zero of the layers that lie
// below the segment, and where a change might not show; then they say nothing.
type segmentLayer struct {
	id   string
	tree uint64 // inode number
	dir  stamp  // of the layer's directory, in which nothing was made since if it is the same
	diff stamp  // and of its upper directory
}

// A stamp changes with each change of the names in a directory.
type stamp struct {
	ino  uint64
	sec  int64
	nsec int64
}

func stampOf(st *unix.Stat_t) stamp { return stamp{st.Ino, st.Ctim.Sec, st.Ctim.Nsec} }

// settledStamp is the stamp of a directory that was looked at, zero if its next change might not show.
func settledStamp(st *unix.Stat_t) stamp {
	if !store.Settled(st, time.Now()) {
		return stamp{}
	}
	return stampOf(st)
}

func (s stamp) append(b []byte) []byte {
	b = append(strconv.AppendUint(b, s.ino, 10), '.')
	b = append(strconv.AppendInt(b, s.sec, 10), '.')
	return append(strconv.AppendInt(b, s.nsec, 10), ' ')
}

func (s *stamp) parse(text string) bool {
	ino, rest, _ := strings.Cut(text, ".")
	sec, nsec, _ := strings.Cut(rest, ".")
	var a, b, c error
	s.ino, a = strconv.ParseUint(ino, 10, 64)
	s.sec, b = strconv.ParseInt(sec, 10, 64)
	s.nsec, c = strconv.ParseInt(nsec, 10, 64)
	return a == nil && b == nil && c == nil
}

// listLayer looks at a plain layer, own or below the segment. What is looked at last is what was there first, so that a change meanwhile shows.
func listLayer(l *Layer, own bool) (s segmentLayer, err error) {
	s.id = l.ID
	var dir, diff, tree unix.Stat_t
	for _, look := range []struct {
		path string
		st   *unix.Stat_t
	}{{l.Dir(), &dir}, {l.DiffDir(), &diff}, {l.TreeDir(), &tree}} {
		if err := unix.Lstat(look.path, look.st); err != nil && (err != unix.ENOENT || look.st != &diff) {
			return s, &os.PathError{Op: "lstat", Path: look.path, Err: err}
		}
	}
	s.tree = tree.Ino
	if !own {
		return s, nil
	}
	s.dir, s.diff = settledStamp(&dir), settledStamp(&diff)
	if plain, err := l.plain(); err != nil || !plain {
		return s, fmt.Errorf("layer %s: %w", l.ID, errors.Join(err, errPlain))
	}
	return s, nil
}

// encodeSegment writes a segment's list.
func encodeSegment(list []segmentLayer) []byte {
	var b []byte
	for _, s := range list {
		b = append(strconv.AppendUint(b, s.tree, 10), ' ')
		b = s.diff.append(s.dir.append(b))
		b = append(append(b, s.id...), '\n')
	}
	return b
}

// decodeSegment reads a segment's list; stamps are of the first k layers alone.
func decodeSegment(text string, k int) ([]segmentLayer, error) {
	var list []segmentLayer
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) < 4 {
			return nil, errRecord
		}
		s := segmentLayer{id: fields[3]}
		var err error
		if s.tree, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
			return nil, fmt.Errorf("%w: %w", errRecord, err)
		}
		if len(list) < k && !(s.dir.parse(fields[1]) && s.diff.parse(fields[2])) {
			return nil, errRecord
		}
		list = append(list, s)
	}
	return list, nil
}
