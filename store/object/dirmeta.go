package object

import "encoding/binary"

// The file types that modes have in their S_IFMT bits, and those bits.
const (
	ModeType    uint32 = 0o170000
	ModeRegular uint32 = 0o100000
	ModeSymlink uint32 = 0o120000
	ModeDir     uint32 = 0o040000
)

// modeBits are the bits that a mode may have besides its type.
const modeBits uint32 = 0o7777

// A DirMeta is a directory's owner, mode (with S_IFDIR) and attributes in
// canonical order. GVariant type (uuua(ayay)).
//
// Unlike a file header it may have attributes without value: `ostree commit` of
// a tar makes such objects, and they are sound ones, as a dirmeta is never
// computed from a directory on disk.
type DirMeta struct {
	UID, GID, Mode uint32
	Xattrs         []Xattr
}

// Type returns TypeDirMeta.
func (*DirMeta) Type() Type { return TypeDirMeta }

func checkDirMode(mode uint32) string {
	if mode&ModeType != ModeDir || mode&^(ModeType|modeBits) != 0 {
		return reasonMode
	}
	return ""
}

// AppendBinary appends the object's bytes to b.
func (m *DirMeta) AppendBinary(b []byte) ([]byte, error) {
	reason := checkDirMode(m.Mode)
	if reason == "" {
		reason = checkXattrs(m.Xattrs, true)
	}
	if reason != "" {
		return b, &FormatError{Type: TypeDirMeta, Offset: -1, Reason: reason}
	}
	b = binary.BigEndian.AppendUint32(b, m.UID)
	b = binary.BigEndian.AppendUint32(b, m.GID)
	b = binary.BigEndian.AppendUint32(b, m.Mode)
	return appendXattrs(b, m.Xattrs), nil
}

// MarshalBinary returns the object's bytes.
func (m *DirMeta) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// UnmarshalBinary replaces m by the dirmeta that b encodes.
func (m *DirMeta) UnmarshalBinary(b []byte) error {
	d := &decoder{b: b, typ: TypeDirMeta}
	if len(b) < 12 {
		d.fail(0, reasonTruncated)
		return d.err
	}
	got := DirMeta{
		UID:  binary.BigEndian.Uint32(b),
		GID:  binary.BigEndian.Uint32(b[4:]),
		Mode: binary.BigEndian.Uint32(b[8:]),
	}
	if reason := checkDirMode(got.Mode); reason != "" {
		d.fail(8, reason)
	}
	got.Xattrs = d.xattrs(span{12, len(b)}, true)
	if d.err != nil {
		return d.err
	}
	*m = got
	return nil
}
