package object

import (
	"strings"
	"unicode/utf8"
)

// A TreeFile is a name of a regular file or symlink, and the file object.
type TreeFile struct {
	Name     string
	Checksum Checksum
}

// A TreeDir is a name of a directory, and its dirtree and dirmeta objects.
type TreeDir struct {
	Name       string
	Tree, Meta Checksum
}

// A DirTree is the names in a directory, each list sorted by the bytes of the
// names. GVariant type (a(say)a(sayay)).
type DirTree struct {
	Files []TreeFile
	Dirs  []TreeDir
}

// Type returns TypeDirTree.
func (*DirTree) Type() Type { return TypeDirTree }

// checkName returns the reason that no entry of a directory can have this name,
// or "".
func checkName(name string) string {
	switch {
	case name == "" || name == "." || name == ".." || strings.IndexByte(name, '/') >= 0:
		return reasonName
	case strings.IndexByte(name, 0) >= 0:
		return reasonNUL
	case !utf8.ValidString(name):
		return reasonUTF8
	}
	return ""
}

// check returns the reason that t is no directory, or "".
func (t *DirTree) check() string {
	for i := range t.Files {
		f := &t.Files[i]
		switch reason := checkName(f.Name); {
		case reason != "":
			return reason
		case i > 0 && t.Files[i-1].Name >= f.Name:
			return reasonNameOrder
		case f.Checksum.IsZero():
			return reasonZeroChecksum
		}
	}
	for i := range t.Dirs {
		e := &t.Dirs[i]
		switch reason := checkName(e.Name); {
		case reason != "":
			return reason
		case i > 0 && t.Dirs[i-1].Name >= e.Name:
			return reasonNameOrder
		case e.Tree.IsZero() || e.Meta.IsZero():
			return reasonZeroChecksum
		}
	}
	return t.checkLists()
}

// checkLists walks both sorted lists for a name that is in both.
func (t *DirTree) checkLists() string {
	for i, j := 0, 0; i < len(t.Files) && j < len(t.Dirs); {
		switch strings.Compare(t.Files[i].Name, t.Dirs[j].Name) {
		case 0:
			return reasonBothLists
		case -1:
			i++
		default:
			j++
		}
	}
	return ""
}

// A file is (say), a directory (sayay): name and NUL, checksums, offsets.
const sumSize = len(Checksum{})

func fileSize(f *TreeFile) int {
	body := len(f.Name) + 1 + sumSize
	return body + offsetWidth(body, 1)
}

func dirSize(e *TreeDir) int {
	body := len(e.Name) + 1 + 2*sumSize
	return body + 2*offsetWidth(body, 2)
}

// AppendBinary appends the object's bytes to b.
func (t *DirTree) AppendBinary(b []byte) ([]byte, error) {
	if reason := t.check(); reason != "" {
		return b, &FormatError{Type: TypeDirTree, Offset: -1, Reason: reason}
	}
	start := len(b)
	b = t.appendFiles(b)
	files := len(b) - start
	b = t.appendDirs(b)
	return appendOffset(b, files, offsetWidth(len(b)-start, 1)), nil
}

func (t *DirTree) appendFiles(b []byte) []byte {
	start := len(b)
	for i := range t.Files {
		f := &t.Files[i]
		b = appendText(b, f.Name)
		b = append(b, f.Checksum[:]...)
		b = appendOffset(b, len(f.Name)+1, offsetWidth(len(f.Name)+1+sumSize, 1))
	}
	w, end := offsetWidth(len(b)-start, len(t.Files)), 0
	for i := range t.Files {
		end += fileSize(&t.Files[i])
		b = appendOffset(b, end, w)
	}
	return b
}

func (t *DirTree) appendDirs(b []byte) []byte {
	start := len(b)
	for i := range t.Dirs {
		e := &t.Dirs[i]
		b = appendText(b, e.Name)
		b = append(b, e.Tree[:]...)
		b = append(b, e.Meta[:]...)
		w := offsetWidth(len(e.Name)+1+2*sumSize, 2)
		b = appendOffset(b, len(e.Name)+1+sumSize, w)
		b = appendOffset(b, len(e.Name)+1, w)
	}
	w, end := offsetWidth(len(b)-start, len(t.Dirs)), 0
	for i := range t.Dirs {
		end += dirSize(&t.Dirs[i])
		b = appendOffset(b, end, w)
	}
	return b
}

// MarshalBinary returns the object's bytes.
func (t *DirTree) MarshalBinary() ([]byte, error) {
	size := 16
	for i := range t.Files {
		size += fileSize(&t.Files[i]) + 4
	}
	for i := range t.Dirs {
		size += dirSize(&t.Dirs[i]) + 4
	}
	return t.AppendBinary(make([]byte, 0, size))
}

// UnmarshalBinary replaces t by the directory that b encodes.
func (t *DirTree) UnmarshalBinary(b []byte) error {
	d := &decoder{b: b, typ: TypeDirTree}
	// The names are substrings of one copy, rather than a copy each.
	whole := string(b)
	outer := d.tuple(span{0, len(b)}, 1)
	middle := d.member(outer, 0, 0)
	got := DirTree{
		Files: d.treeFiles(span{0, middle}, whole),
		Dirs:  d.treeDirs(span{middle, outer.end}, whole),
	}
	if d.err == nil {
		if reason := got.checkLists(); reason != "" {
			d.fail(middle, reason)
		}
	}
	if d.err != nil {
		return d.err
	}
	*t = got
	return nil
}

func (d *decoder) treeFiles(s span, whole string) []TreeFile {
	a := d.array(s, 1)
	if a.n == 0 {
		return nil
	}
	files := make([]TreeFile, a.n)
	previous := ""
	for i := range files {
		e := d.element(a, i)
		t := d.tuple(e, 1)
		end := d.member(t, 0, e.start)
		f := &files[i]
		f.Name = d.entryName(span{e.start, end}, previous, whole)
		f.Checksum = d.checksum(span{end, t.end})
		if d.err != nil {
			return nil
		}
		previous = f.Name
	}
	return files
}

func (d *decoder) treeDirs(s span, whole string) []TreeDir {
	a := d.array(s, 1)
	if a.n == 0 {
		return nil
	}
	dirs := make([]TreeDir, a.n)
	previous := ""
	for i := range dirs {
		e := d.element(a, i)
		t := d.tuple(e, 2)
		end := d.member(t, 0, e.start)
		middle := d.member(t, 1, end)
		f := &dirs[i]
		f.Name = d.entryName(span{e.start, end}, previous, whole)
		f.Tree = d.checksum(span{end, middle})
		f.Meta = d.checksum(span{middle, t.end})
		if d.err != nil {
			return nil
		}
		previous = f.Name
	}
	return dirs
}

// entryName decodes a name that must sort after previous; "" for the first.
func (d *decoder) entryName(s span, previous, whole string) string {
	name := d.text(s, whole)
	if d.err != nil {
		return ""
	}
	if reason := checkName(name); reason != "" {
		d.fail(s.start, reason)
	} else if name <= previous {
		d.fail(s.start, reasonNameOrder)
	}
	return name
}
