package layers

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
)

// A segmentList says what the layers of a segment were when it was made, from the uppermost one on, and what lay below.
type segmentList struct {
	own   []segmentLayer
	below string // digest of the list of the segment below, "" if this is the lowest
}

// A segmentLayer is a line of the list. Where a change might not show the stamps are zero; then they say nothing.
type segmentLayer struct {
	id   string
	tree uint64 // inode number
	dir  stamp  // of the layer's directory, in which nothing was made since if it is the same
	diff stamp  // and of its upper directory
}

// digest tells of which layers a segment is, and with which trees, down to the base layer. Whoever makes it of the same layers gets the same.
func (s *segmentList) digest() string {
	b := append([]byte(s.below), '\n')
	for _, l := range s.own {
		b = append(strconv.AppendUint(b, l.tree, 10), ' ')
		b = append(append(b, l.id...), '\n')
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
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

// listSegment looks at the layers of a chain, of which the first k are the segment's own.
func listSegment(chain []*Layer, k int) (s segmentList, err error) {
	for end := len(chain); end > 0; end -= k {
		if end < len(chain) {
			s = segmentList{below: s.digest()}
		}
		for _, l := range chain[end-k : end] {
			line, err := listLayer(l, end == k)
			if err != nil {
				return s, err
			}
			s.own = append(s.own, line)
		}
	}
	return s, nil
}

// listLayer looks at a layer, which is plain, or is below the segment. What is looked at last is what was there first, so that a change meanwhile shows.
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

// encode writes the list.
func (s *segmentList) encode() []byte {
	var b []byte
	for _, l := range s.own {
		b = append(strconv.AppendUint(b, l.tree, 10), ' ')
		b = l.diff.append(l.dir.append(b))
		b = append(append(b, l.id...), '\n')
	}
	if s.below != "" {
		b = append(append(b, s.below...), '\n')
	}
	return b
}

// decodeSegment reads the list of a segment of k layers.
func decodeSegment(text string, k int) (list segmentList, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if len(list.own) == k {
			if list.below != "" || len(line) != 2*sha256.Size {
				return list, errRecord
			}
			list.below = line
			continue
		}
		fields := strings.SplitN(line, " ", 4)
		if len(fields) < 4 {
			return list, errRecord
		}
		l := segmentLayer{id: fields[3]}
		if l.tree, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
			return list, fmt.Errorf("%w: %w", errRecord, err)
		}
		if !l.dir.parse(fields[1]) || !l.diff.parse(fields[2]) {
			return list, errRecord
		}
		list.own = append(list.own, l)
	}
	if len(list.own) < k {
		return list, errRecord
	}
	return list, nil
}
