package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A treeCheck compares a layer's tree/ with its commit.
type treeCheck struct {
	l     *Layer
	o     *CheckOptions
	ctx   context.Context //nolint:containedctx // lives for one check
	found []Fault
	dirs  []checkedDir
	names map[int]uint64 // inode of the first names of hardlinks
	used  map[uint64]int // entry of each inode

	firsts map[int]string // paths of the first names of hardlinks, for a repair
	mend   func(dir int, e *Entry, reason string) error
	dress  func(dir int, e *Entry, reason string, mended bool) error
}

// A checkedDir is a directory that the walk is in.
type checkedDir struct {
	fd     int // -1 if it is not there
	e      Entry
	names  map[string]struct{}
	mended bool // an entry of it was made anew, and its time is now
}

// maxTreeFaults is how many faults of one tree are told.
const maxTreeFaults = 1000

func (t *treeCheck) fault(path, reason string, args ...any) {
	if len(t.found) < maxTreeFaults {
		t.found = append(t.found, Fault{Kind: FaultTree, Layer: t.l.ID, Path: path, Reason: fmt.Sprintf(reason, args...)})
	}
}

func (t *treeCheck) run() error {
	t.names, t.used = map[int]uint64{}, map[uint64]int{}
	root, err := openDirAt(unix.AT_FDCWD, t.l.TreeDir())
	if err != nil {
		t.fault(".", "open the tree: %v", err)
		return nil
	}
	t.dirs = []checkedDir{{fd: root}}
	err = walkCommit(t.ctx, t.l.catalog.repo, t.l.Commit, walkFuncs{entry: t.entry, leave: t.leave})
	for _, d := range t.dirs {
		if d.fd >= 0 {
			unix.Close(d.fd)
		}
	}
	if err != nil && t.ctx.Err() == nil && !errors.Is(err, errMend) {
		t.found = append(t.found, Fault{Kind: FaultCommit, Layer: t.l.ID, Reason: err.Error()})
		return nil
	}
	return err
}

var errMend = errors.New("mend the tree")

func (t *treeCheck) entry(e *Entry) error {
	if e.Path == "." {
		t.dirs[0].e, t.dirs[0].names = *e, map[string]struct{}{}
		return nil
	}
	d := &t.dirs[len(t.dirs)-1]
	name := filepath.Base(e.Path)
	d.names[name] = struct{}{}
	if e.linked && t.firsts != nil {
		t.firsts[e.Index] = e.Path
	}
	reason := ""
	if d.fd >= 0 {
		reason = t.compare(d.fd, name, e)
	}
	if reason != "" && t.mend != nil {
		err := t.mend(d.fd, e, reason)
		if err == nil {
			reason, d.mended = "", true
		} else if !errors.Is(err, store.ErrNoCopy) {
			return fmt.Errorf("%w: %q: %w", errMend, e.Path, err)
		}
	}
	if reason != "" {
		t.fault(e.Path, "%s", reason)
	}
	if !e.IsDir() {
		return nil
	}
	sub := -1
	if d.fd >= 0 {
		if fd, err := openDirAt(d.fd, name); err == nil {
			sub = fd
		}
	}
	made := t.mend != nil && sub >= 0 && d.mended
	t.dirs = append(t.dirs, checkedDir{fd: sub, e: *e, names: map[string]struct{}{}, mended: made})
	return nil
}

// leave looks at a directory when all that must be in it has been seen.
func (t *treeCheck) leave() error {
	d := t.dirs[len(t.dirs)-1]
	t.dirs = t.dirs[:len(t.dirs)-1]
	if d.fd < 0 {
		return nil
	}
	defer unix.Close(d.fd)
	names, err := dirNames(d.fd)
	if err != nil {
		t.fault(d.e.Path, "list it: %v", err)
	}
	for _, n := range names {
		if _, ok := d.names[n]; !ok {
			t.fault(filepath.Join(d.e.Path, n), "it is not in the commit")
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		t.fault(d.e.Path, "stat: %v", err)
		return nil
	}
	reason := t.directory(d.fd, &st, &d.e)
	if reason != "" && t.dress != nil {
		if err := t.dress(d.fd, &d.e, reason, d.mended); err != nil {
			return fmt.Errorf("%w: %q: %w", errMend, d.e.Path, err)
		}
		return nil
	}
	if reason != "" {
		t.fault(d.e.Path, "%s", reason)
	}
	return nil
}

func dirNames(fd int) ([]string, error) {
	dup, err := openDirAt(fd, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// xattrsOf are the attributes of an inode as a layer tar has them: overlayfs's escape and marks and the store label taken off.
func (t *treeCheck) unescape(list []object.Xattr) []object.Xattr {
	prefix := overlayPrefix(t.l.catalog.o.UserXattr)
	out := make([]object.Xattr, 0, len(list))
	for _, x := range list {
		if rest, ok := strings.CutPrefix(x.Name, prefix); ok {
			inner, escaped := strings.CutPrefix(rest, "overlay.")
			if !escaped {
				continue // a mark of ours
			}
			x.Name = prefix + inner
		}
		out = append(out, x)
	}
	return out
}
