// Package graphroots keeps, beside a pinned store, the list of the graphroots that use it. The driver registers its own whenever it shows
// the pinned store to a program; who removes from the pinned store asks every one of them first.
package graphroots

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Root is a graphroot that uses the pinned store: its layers and images may stand on layers there.
type Root struct {
	Graphroot string `json:"graphroot"`
	RunRoot   string `json:"runroot"`
	FSID      string `json:"fsid"` // of its filesystem: a graphroot that is gone is told from one that is not mounted
}

// A Failure is a registration that cannot be read.
type Failure struct {
	Path string
	Err  error
}

// Dir returns where the registrations are: a file each, so that programs may register at once.
func Dir(store string) string { return filepath.Join(store, "graphroots") }

// FSID names the filesystem of a path, or of the nearest directory above that exists.
func FSID(path string) (string, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			return fmt.Sprintf("%x:%08x%08x", st.Type, uint32(st.Fsid.Val[0]), uint32(st.Fsid.Val[1])), nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.ENOENT) || path == "/" || path == "." {
			return "", &os.PathError{Op: "statfs", Path: path, Err: err}
		}
		path = filepath.Dir(path)
	}
}

// Register notes that a graphroot uses the pinned store. What is there already is not written again.
func Register(store, graphroot, runroot string) error {
	graphroot, runroot = realPath(graphroot), realPath(runroot)
	id, err := FSID(graphroot)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(graphroot))
	path := filepath.Join(Dir(store), hex.EncodeToString(sum[:16])+".json")
	r := Root{graphroot, runroot, id}
	if old, err := read(path); err == nil && old == r {
		return nil
	}
	if err := os.Mkdir(Dir(store), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return write(path, append(text, '\n'))
}

func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// write replaces a file durably: a registration that a power cut loses would let a layer go that somebody needs.
func write(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func read(path string) (Root, error) {
	var r Root
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.Graphroot == "" {
		err = errors.New("it names no graphroot")
	}
	return r, err
}

// List returns the registered graphroots, and the registrations that cannot be read.
func List(store string) ([]Root, []Failure, error) {
	entries, err := os.ReadDir(Dir(store))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var out []Root
	var bad []Failure
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(Dir(store), e.Name())
		r, err := read(path)
		if err != nil {
			bad = append(bad, Failure{path, err})
			continue
		}
		out = append(out, r)
	}
	return out, bad, nil
}
