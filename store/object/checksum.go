package object

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
)

// A Checksum is the SHA-256 of an object's canonical bytes; of a file, of its
// framed header followed by its body. The zero value names nothing.
type Checksum [sha256.Size]byte

// Sum returns the checksum of a metadata object's bytes.
func Sum(b []byte) Checksum { return sha256.Sum256(b) }

// ParseChecksum reads 64 lowercase hex digits.
func ParseChecksum(s string) (Checksum, error) {
	var c Checksum
	if !parseHex(c[:], s) {
		return Checksum{}, &FormatError{Offset: 0, Reason: reasonHex}
	}
	return c, nil
}

// parseHex is stricter than encoding/hex: a capital would be a second spelling
// of the same object.
func parseHex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := hexDigit(s[2*i]), hexDigit(s[2*i+1])
		if hi|lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// String returns 64 lowercase hex digits.
func (c Checksum) String() string { return hex.EncodeToString(c[:]) }

// AppendText appends what String returns. It never fails.
func (c Checksum) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, c[:]), nil }

// MarshalText returns what String returns, as bytes. It never fails.
func (c Checksum) MarshalText() ([]byte, error) { return c.AppendText(nil) }

// UnmarshalText is ParseChecksum.
func (c *Checksum) UnmarshalText(b []byte) (err error) {
	*c, err = ParseChecksum(string(b))
	return err
}

// IsZero reports whether c names nothing.
func (c Checksum) IsZero() bool { return c == Checksum{} }

// Compare orders checksums by their bytes, as their hex forms are ordered.
func (c Checksum) Compare(d Checksum) int { return bytes.Compare(c[:], d[:]) }
