package layers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// Names in a layer's directory.
const (
	recordName  = "record"
	recordTmp   = ".record"
	treeDirName = "tree"
	diffName    = "diff"
	workName    = "work"
	mergedName  = "merged"
	mappedName  = "mapped"
	inodesName  = "inodes"
)

// A recordLine is the first line of a record. The ids of the ancestors follow, one a line, nearest first, so that whoever needs
// only the layer itself can stop reading. Where the parent is in the same home the layer of a container has none: its parent's record has them.
type recordLine struct {
	Parent    string `json:"parent,omitempty"`
	Commit    string `json:"commit,omitempty"`
	Size      int64  `json:"size"`
	Entries   int64  `json:"entries,omitempty"`
	ReadWrite bool   `json:"readwrite,omitempty"`
	Depth     int    `json:"depth"`           // number of ancestors
	Brief     bool   `json:"brief,omitempty"` // they are not listed
}

var errRecord = errors.New("record is damaged")

func encodeRecord(l *Layer) ([]byte, error) {
	line := recordLine{Parent: l.Parent, Size: l.Size, Entries: l.Entries, ReadWrite: l.ReadWrite, Depth: len(l.Ancestors), Brief: l.brief}
	if l.Applied() {
		line.Commit = l.Commit.String()
	}
	b, err := json.Marshal(line)
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	if l.brief {
		return b, nil
	}
	for _, a := range l.Ancestors {
		b = append(append(b, a...), '\n')
	}
	return b, nil
}

func decodeRecord(id string, b []byte, ancestors bool) (*Layer, error) {
	first, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return nil, errRecord
	}
	var line recordLine
	if err := json.Unmarshal(first, &line); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	l := &Layer{ID: id, Parent: line.Parent, Size: line.Size, Entries: line.Entries, ReadWrite: line.ReadWrite}
	if line.Commit != "" {
		var err error
		if l.Commit, err = object.ParseChecksum(line.Commit); err != nil {
			return nil, fmt.Errorf("%w: %w", errRecord, err)
		}
	}
	if l.brief = line.Brief; l.brief && (line.Depth < 1 || line.Depth > maxBrief || line.Parent == "" || len(rest) > 0) {
		return nil, fmt.Errorf("%w: no ancestors to leave out", errRecord)
	}
	if !ancestors {
		return l, nil
	}
	if l.brief {
		l.Ancestors = make([]string, line.Depth)
		l.Ancestors[0] = line.Parent
		return l, nil
	}
	if line.Depth > 0 {
		l.Ancestors = strings.Split(strings.TrimSuffix(string(rest), "\n"), "\n")
	}
	if len(l.Ancestors) != line.Depth || (line.Parent == "") != (line.Depth == 0) || line.Depth > 0 && l.Ancestors[0] != line.Parent {
		return nil, fmt.Errorf("%w: wrong ancestors", errRecord)
	}
	return l, nil
}

// maxBrief is more ancestors than any chain has.
const maxBrief = 1 << 20

// firstLine is more than the first line of a record can be long.
const firstLine = 1 << 10

// readRecord reads the record of a layer in the directory layers.
func readRecord(layers int, id string, ancestors bool) (*Layer, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(layers, id+"/"+recordName, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err == unix.ELOOP {
		b, err := readLinks(layers, id+"/"+recordName)
		if err != nil {
			return nil, err
		}
		return decodeRecord(id, b, ancestors)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: recordName, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, firstLine)
	n, err := retryEINTR(func() (int, error) { return unix.Read(fd, b) })
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, &os.PathError{Op: "read", Path: recordName, Err: unix.ENOENT} // a power cut came before its bytes
	}
	b = b[:n]
	if ancestors && n == firstLine {
		rest, err := readAll(fd)
		if err != nil {
			return nil, err
		}
		b = append(b, rest...)
	}
	return decodeRecord(id, b, ancestors)
}

// readAll reads a descriptor to its end.
func readAll(fd int) ([]byte, error) {
	var all []byte
	b := make([]byte, 64<<10)
	for {
		n, err := retryEINTR(func() (int, error) { return unix.Read(fd, b) })
		if err != nil || n == 0 {
			return all, err
		}
		all = append(all, b[:n]...)
	}
}

// writeRecord replaces the record of a layer at once. That of a layer with content is a file, which the sync that follows makes
// durable; nothing waits for the disk while a container is made, and so its record is one that cannot be torn.
func writeRecord(dir string, l *Layer) error {
	l.brief = l.brief && !l.Applied()
	b, err := encodeRecord(l)
	if err != nil {
		return err
	}
	if !l.Applied() {
		return writeLinks(filepath.Join(dir, recordName), b)
	}
	tmp := filepath.Join(dir, recordTmp)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = store.WriteOut(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordName)); err != nil {
		return err
	}
	return removeLinks(filepath.Join(dir, recordName), len(b))
}

// A version is what the file `version` says about a home.
type version struct {
	Format       int      `json:"format"`
	Compatible   []string `json:"compatible"`   // may be ignored
	ReadOnly     []string `json:"read_only"`    // who does not know one may only read
	Incompatible []string `json:"incompatible"` // who does not know one must stay away
}

// homeFormat is the format of the homes that we make; we know no feature flags yet.
const homeFormat = 1

const versionTmp = ".version"

func readVersion(home string) (*version, error) {
	b, err := os.ReadFile(filepath.Join(home, versionName))
	if err != nil {
		return nil, err
	}
	v := &version{}
	if err := json.Unmarshal(b, v); err != nil || v.Format < 1 {
		return nil, fmt.Errorf("%w: file %q is not one of this driver", ErrUnsupported, versionName)
	}
	return v, nil
}

func writeVersion(home string) error {
	b, err := json.Marshal(version{Format: homeFormat, Compatible: []string{}, ReadOnly: []string{}, Incompatible: []string{}})
	if err != nil {
		return err
	}
	tmp := filepath.Join(home, versionTmp)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	// An empty file after a crash would make the home nobody's.
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(home, versionName))
}

// check refuses a home of the future, or makes o read-only.
func (v *version) check(o *Options) error {
	if v.Format > homeFormat {
		return fmt.Errorf("%w: the layers are in format %d, and this program knows formats up to %d: use a newer one", ErrUnsupported, v.Format, homeFormat)
	}
	if len(v.Incompatible) > 0 {
		slices.Sort(v.Incompatible)
		return fmt.Errorf("%w: the layers use %s, which this program does not know: use a newer one", ErrUnsupported, strings.Join(v.Incompatible, ", "))
	}
	if len(v.ReadOnly) > 0 && !o.ReadOnly {
		return fmt.Errorf("%w: the layers use %s, which this program can only read: use a newer one", ErrUnsupported, strings.Join(v.ReadOnly, ", "))
	}
	return nil
}
