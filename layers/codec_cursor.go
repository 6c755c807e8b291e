package layers

import (
	"encoding/binary"
	"math"
)

// A cursor reads numbers and strings from one value of the metadata. After the first fault it returns zeros and keeps the fault.
type cursor struct {
	key string
	b   []byte
	err error
}

func newCursor(key string, b []byte) cursor { return cursor{key: key, b: b} }

func (c *cursor) fail(reason string) {
	if c.err == nil {
		c.err = &metaError{c.key, reason}
	}
	c.b = nil
}

func (c *cursor) more() bool { return len(c.b) > 0 }

// uvarint reads an unsigned LEB128 number in its shortest form.
func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail("number is cut short or too large")
		return 0
	}
	if n > 1 && c.b[n-1] == 0 {
		c.fail("number is longer than needed")
		return 0
	}
	c.b = c.b[n:]
	return v
}

// uint32 reads a number of at most 32 bits.
func (c *cursor) uint32() uint32 {
	v := c.uvarint()
	if v > math.MaxUint32 {
		c.fail("number has more than 32 bits")
		return 0
	}
	return uint32(v)
}

// zigzag reads a signed number.
func (c *cursor) zigzag() int64 {
	u := c.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// text reads a length and that many bytes.
func (c *cursor) text() string {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.fail("string is cut short")
		return ""
	}
	s := string(c.b[:n])
	c.b = c.b[n:]
	return s
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
