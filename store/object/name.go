package object

import (
	"cmp"
	"encoding/hex"
	"strings"
)

// A Type says what kind of object a checksum names. The numbers are OSTree's own.
type Type uint8

// The types of object that a repository in bare mode is made of.
const (
	TypeFile    Type = 1 // a regular file or a symlink
	TypeDirTree Type = 2 // the names in a directory
	TypeDirMeta Type = 3 // owner, mode and attributes of a directory
	TypeCommit  Type = 4
)

var typeNames = [...]string{TypeFile: "file", TypeDirTree: "dirtree", TypeDirMeta: "dirmeta", TypeCommit: "commit"}

// String returns the type as the extension of an object's file has it.
func (t Type) String() string {
	if t == 0 || int(t) >= len(typeNames) {
		return "unknown"
	}
	return typeNames[t]
}

// ParseType reads the extension of an object's file, without its dot.
func ParseType(s string) (Type, error) {
	for t := TypeFile; t <= TypeCommit; t++ {
		if typeNames[t] == s {
			return t, nil
		}
	}
	return 0, &FormatError{Offset: 0, Reason: reasonTypeName}
}

// A Name names one object of a repository.
type Name struct {
	Checksum Checksum
	Type     Type
}

// String returns "<64 hex digits>.<type>".
func (n Name) String() string { return n.Checksum.String() + "." + n.Type.String() }

// ParseName reads what String returns.
func ParseName(s string) (Name, error) {
	hexa, ext, _ := strings.Cut(s, ".")
	c, err := ParseChecksum(hexa)
	if err != nil {
		return Name{}, err
	}
	t, err := ParseType(ext)
	if err != nil {
		return Name{}, err
	}
	return Name{c, t}, nil
}

// LoosePath returns the object's place below the repository's objects
// directory: two hex digits, a slash, the other 62, a dot and the type.
func (n Name) LoosePath() string {
	var space [2*len(n.Checksum) + 10]byte // on the stack; no type's name is longer than "dirtree"
	b := hex.AppendEncode(space[:0], n.Checksum[:1])
	b = append(b, '/')
	b = hex.AppendEncode(b, n.Checksum[1:])
	b = append(b, '.')
	return string(append(b, n.Type.String()...))
}

// ParseLoosePath reads what LoosePath returns.
func ParseLoosePath(s string) (Name, error) {
	if len(s) < 3 || s[2] != '/' {
		return Name{}, &FormatError{Offset: 0, Reason: reasonHex}
	}
	return ParseName(s[:2] + s[3:])
}

// Compare orders names by checksum, then by type.
func (n Name) Compare(m Name) int {
	return cmp.Or(n.Checksum.Compare(m.Checksum), cmp.Compare(n.Type, m.Type))
}
