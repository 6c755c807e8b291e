package object

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// A FileHeader is all that OSTree hashes about a regular file or symlink besides
// the body. There is no time in it. GVariant type (uuuusa(ayay)), in a frame.
//
// Mode has S_IFMT. A symlink's mode is 0120777, as lstat reports it, its target
// is UTF-8 and not empty; a regular file has no target. Xattrs are in canonical
// order and have values.
type FileHeader struct {
	UID, GID, Mode uint32
	Target         string
	Xattrs         []Xattr
}

// Type returns TypeFile.
func (*FileHeader) Type() Type { return TypeFile }

// The frame is the header's length, big-endian, and four zeros.
const (
	frameSize  = 8
	headerInts = 16 // owner, group, mode and device number
)

// checkFileMode returns the reason that a file cannot have this mode with this
// target, or "".
func checkFileMode(mode uint32, target string) string {
	switch {
	case mode == ModeSymlink|0o777:
		if target == "" {
			return reasonTarget
		}
	case mode&ModeType != ModeRegular || mode&^(ModeType|modeBits) != 0:
		return reasonMode
	case target != "":
		return reasonTarget
	}
	return ""
}

// AppendBinary appends the framed header to b: the bytes that are hashed before
// the body.
func (h *FileHeader) AppendBinary(b []byte) ([]byte, error) {
	reason := checkFileMode(h.Mode, h.Target)
	if reason == "" && h.Target != "" {
		reason = checkText(h.Target)
	}
	if reason == "" {
		reason = checkXattrs(h.Xattrs, false)
	}
	if reason != "" {
		return b, &FormatError{Type: TypeFile, Offset: -1, Reason: reason}
	}
	frame := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, h.UID)
	b = binary.BigEndian.AppendUint32(b, h.GID)
	b = binary.BigEndian.AppendUint32(b, h.Mode)
	b = append(b, 0, 0, 0, 0)
	b = appendText(b, h.Target)
	target := len(b) - start
	b = appendXattrs(b, h.Xattrs)
	b = appendOffset(b, target, offsetWidth(len(b)-start, 1))
	binary.BigEndian.PutUint32(b[frame:], uint32(len(b)-start))
	return b, nil
}

// MarshalBinary returns the framed header.
func (h *FileHeader) MarshalBinary() ([]byte, error) { return h.AppendBinary(nil) }

// UnmarshalBinary replaces h by the framed header that is all of b.
func (h *FileHeader) UnmarshalBinary(b []byte) error {
	d := &decoder{b: b, typ: TypeFile}
	got := d.header()
	if d.err != nil {
		return d.err
	}
	*h = got
	return nil
}

func (d *decoder) header() (h FileHeader) {
	b := d.b
	if len(b) < frameSize+headerInts+2 {
		d.fail(0, reasonTruncated)
		return h
	}
	if uint64(binary.BigEndian.Uint32(b)) != uint64(len(b)-frameSize) {
		d.fail(0, reasonFrame)
	}
	if binary.BigEndian.Uint32(b[4:]) != 0 {
		d.fail(4, reasonPadding)
	}
	v := b[frameSize:]
	h.UID = binary.BigEndian.Uint32(v)
	h.GID = binary.BigEndian.Uint32(v[4:])
	h.Mode = binary.BigEndian.Uint32(v[8:])
	if binary.BigEndian.Uint32(v[12:]) != 0 {
		d.fail(frameSize+12, reasonDevice)
	}
	t := d.tuple(span{frameSize, len(b)}, 1)
	target := d.member(t, 0, frameSize+headerInts)
	h.Target = d.text(span{frameSize + headerInts, target}, "")
	if reason := checkFileMode(h.Mode, h.Target); reason != "" {
		d.fail(frameSize+8, reason)
	}
	h.Xattrs = d.xattrs(span{target, t.end}, false)
	return h
}

// NewHash returns a SHA-256 that has taken in h's framed header. Write the body
// to it; its Sum is then the file's checksum.
func (h *FileHeader) NewHash() (hash.Hash, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	b, err := h.AppendBinary(s.header[:0])
	s.header = b[:0]
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	sum.Write(b)
	return sum, nil
}

// Checksum returns the checksum of the file with header h and this body, which
// is empty for a symlink.
func (h *FileHeader) Checksum(body []byte) (c Checksum, err error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	b, err := h.AppendBinary(s.header[:0])
	s.header = b[:0]
	if err != nil {
		return c, err
	}
	s.sum.Reset()
	s.sum.Write(b)
	s.sum.Write(body)
	s.sum.Sum(s.out[:0])
	return s.out, nil
}

// A scratch is what hashing a file needs for a moment. A layer has tens of
// thousands of files, so it is kept from one to the next.
type scratch struct {
	header []byte
	sum    hash.Hash
	out    Checksum
}

var scratches = sync.Pool{New: func() any {
	return &scratch{header: make([]byte, 0, 256), sum: sha256.New()}
}}
