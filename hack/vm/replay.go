package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// What dm-log-writes says of a write.
const (
	logMagic    = 0x6a736677736872
	flagFlush   = 1
	flagFUA     = 2
	flagDiscard = 4
	flagMark    = 8
)

// replay writes what was logged to disk, in order, and calls verify whenever all that was written so far is what a disk must hold after
// a power cut: after each flush, and each write that goes through the disk's cache. verify is given the marks so far.
func replay(log string, disk *os.File, verify func(marks []string) error) (points int, err error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	super := make([]byte, 28)
	if _, err := f.ReadAt(super, 0); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if le.Uint64(super) != logMagic {
		return 0, errors.New("there is no log")
	}
	sector := int64(le.Uint32(super[24:]))
	var marks []string
	writes, at, last := 0, sector, -1
	for n := range le.Uint64(super[16:]) {
		entry := make([]byte, sector)
		if _, err := f.ReadAt(entry, at); err != nil {
			return points, err
		}
		at += sector
		where, count, flags, size := int64(le.Uint64(entry)), int64(le.Uint64(entry[8:])), le.Uint64(entry[16:]), le.Uint64(entry[24:])
		switch {
		case flags&flagMark != 0:
			marks = append(marks, string(entry[32:32+size]))
			fmt.Println("mark:", marks[len(marks)-1], "at entry", n, "after", writes, "writes")
			continue
		case flags&flagDiscard == 0 && count > 0:
			if _, err := io.Copy(io.NewOffsetWriter(disk, where*sector), io.NewSectionReader(f, at, count*sector)); err != nil {
				return points, err
			}
			at += count * sector
			writes++
		}
		if flags&(flagFlush|flagFUA) == 0 || writes == last {
			continue
		}
		last = writes
		points++
		if err := verify(marks); err != nil {
			return points, fmt.Errorf("after entry %d, %d writes, marks %q: %w", n, writes, marks, err)
		}
	}
	return points, nil
}

// copyDisk copies what of a disk is not zeros to a file.
func copyDisk(from, to string) (*os.File, error) {
	in, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return nil, err
	}
	size, err := in.Seek(0, io.SeekEnd)
	if err == nil {
		err = out.Truncate(size)
	}
	b, zeros := make([]byte, 1<<16), string(make([]byte, 1<<16))
	for at := int64(0); at < size && err == nil; at += int64(len(b)) {
		var n int
		if n, err = in.ReadAt(b, at); n > 0 && string(b[:n]) != zeros[:n] {
			_, err = out.WriteAt(b[:n], at)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return out, err
}
