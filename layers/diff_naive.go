package layers

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// WriteNaiveDiff writes the layer tar of the changes that NaiveChanges found in newDir: added and modified entries as
// they are, and a whiteout with the time of now for each deletion, in the order of their paths.
func WriteNaiveDiff(ctx context.Context, w io.Writer, newDir string, changes []Change, o TreeOptions) error {
	t := newTreeTar(w, o)
	dirs, err := openPathDirs(newDir)
	if err != nil {
		return err
	}
	defer dirs.close()
	sorted := slices.Clone(changes)
	slices.SortStableFunc(sorted, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	for _, c := range sorted {
		if err := ctx.Err(); err != nil {
			return err
		}
		rel := strings.TrimPrefix(c.Path, "/")
		if c.Kind == ChangeDelete {
			err = t.writeWhiteout(rel)
		} else {
			err = t.writePath(ctx, dirs, rel)
		}
		if err != nil {
			return err
		}
	}
	return t.close()
}

func (t *treeTar) writeWhiteout(rel string) error {
	dir, name := path.Split(rel)
	if err := t.tw.WriteHeader(&tar.Header{Name: path.Join(dir, whiteoutPrefix+name), ModTime: time.Now()}); err != nil {
		return fmt.Errorf("write whiteout of /%s to tar: %w", rel, err)
	}
	return nil
}

// writePath writes the entry at a path, or nothing if it is gone.
func (t *treeTar) writePath(ctx context.Context, dirs *pathDirs, rel string) error {
	d, name, err := dirs.open(rel)
	var e *walkEntry
	if err == nil {
		e, err = openEntry(d, name)
	}
	if vanished(err) {
		t.skip(rel, err)
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	defer e.close()
	e.path = rel
	hdr, err := t.header(e)
	if err != nil || hdr == nil {
		return err
	}
	return t.write(ctx, e, hdr)
}
