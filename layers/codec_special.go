package layers

import (
	"math"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// What a device number can hold on Linux.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// maxTarget is the longest target of a symlink in bytes.
const maxTarget = 4095

// advanceSpecial reads the next special, if there is one.
func (r *metaReader) advanceSpecial() {
	c, prev := &r.specials, r.nextSpecial
	r.nextSpecial = nil
	if !c.more() {
		return
	}
	s := &special{Dir: c.uvarint()}
	if prev != nil {
		if s.Dir > math.MaxInt64 {
			c.fail("directory is too large")
		}
		s.Dir += prev.Dir
	}
	s.Name = c.text()
	s.Mode, s.UID, s.GID, s.Major, s.Minor = c.uint32(), c.uint32(), c.uint32(), c.uint32(), c.uint32()
	s.Target = c.text()
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.fail("wrong number of attributes")
		return
	}
	for i := uint64(0); i < n && c.err == nil; i++ {
		a := attr{c.text(), c.text()}
		if a.Name == "" || i > 0 && a.Name <= s.Attrs[i-1].Name {
			c.fail("attributes are not in order")
		}
		s.Attrs = append(s.Attrs, a)
	}
	if prev != nil && prev.Dir == s.Dir && prev.Name >= s.Name {
		c.fail("names are not in order")
	}
	if reason := s.fault(); c.err == nil && reason != "" {
		c.fail(reason)
	}
	if c.err == nil {
		r.nextSpecial = s
	}
}

// fault says why s cannot be a special, "" if it can.
func (s *special) fault() string {
	if !validTreeName(s.Name) {
		return "bad name"
	}
	if s.Mode&^(unix.S_IFMT|0o7777) != 0 {
		return "bad mode"
	}
	device := false
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		device = true
	case unix.S_IFIFO:
	case unix.S_IFLNK:
		if s.Mode != unix.S_IFLNK|0o777 || utf8.ValidString(s.Target) || len(s.Target) > maxTarget {
			return "symlink that needs no special"
		}
	default:
		return "bad type"
	}
	if !device && (s.Major != 0 || s.Minor != 0) || s.Major > maxMajor || s.Minor > maxMinor {
		return "bad device number"
	}
	if s.Mode&unix.S_IFMT != unix.S_IFLNK && s.Target != "" {
		return "target of no symlink"
	}
	return ""
}
