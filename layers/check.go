package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A FaultKind says what of a layer is wrong.
type FaultKind string

// What may be wrong with a layer.
const (
	FaultRecord FaultKind = "record" // the record is missing, damaged, or at odds with the layers it names
	FaultRef    FaultKind = "ref"    // the ref does not name the record's commit, or there is one without a layer
	FaultList   FaultKind = "inodes" // the list of inodes is damaged
	FaultTree   FaultKind = "tree"   // an entry of tree/ is not what the commit says
	FaultCommit FaultKind = "commit" // the commit or one of its trees cannot be read
)

// A Fault is one thing that is wrong with a layer.
type Fault struct {
	Kind   FaultKind
	Layer  string
	Path   string // in the tree, of FaultTree
	Reason string
}

func (f Fault) String() string {
	s := "layer " + f.Layer + ": " + string(f.Kind)
	if f.Path != "" {
		s += fmt.Sprintf(": %q", f.Path)
	}
	return s + ": " + f.Reason
}

// CheckOptions bound a check of layers.
type CheckOptions struct {
	Quick       bool     // do not read files
	Part, Parts int      // read the files of one of Parts equal parts, from 1
	Homes       Catalogs // where parents may be; none means this catalog
	Only        []string // these layers and no others, if not nil
	Tell        func()   // called after each layer, if not nil

	inodes map[uint64]string // what was found of inodes with several names
}

// RefOf returns the name of the ref that names a layer's commit.
func RefOf(id string) string { return layerRef(id) }

// Check looks at the records, refs, inode lists and trees of the layers, and calls report for each thing that is wrong. It reads the
// files of trees that are not the object's own inode; the objects are the repository's to check. It changes nothing, and looks twice at
// what seems wrong, so that what comes and goes meanwhile is no fault.
func (c *Catalog) Check(ctx context.Context, o CheckOptions, report func(Fault)) error {
	if o.Homes == nil {
		o.Homes = Catalogs{c}
	}
	o.inodes = map[uint64]string{}
	ids := o.Only
	if ids == nil {
		var err error
		if ids, err = c.IDs(); err != nil {
			return fmt.Errorf("check layers: %w", err)
		}
		slices.Sort(ids)
	}
	for _, id := range ids {
		found, err := c.checkLayer(ctx, id, &o)
		if err == nil && len(found) > 0 {
			time.Sleep(recheck)
			clear(o.inodes)
			found, err = c.checkLayer(ctx, id, &o)
		}
		if err != nil {
			return fmt.Errorf("check layer %s: %w", id, err)
		}
		for _, f := range found {
			report(f)
		}
		if o.Tell != nil {
			o.Tell()
		}
	}
	if o.Only != nil {
		return nil
	}
	return c.checkRefs(report)
}

// recheck is how long something has to be wrong: removals and commits take several steps.
const recheck = 100 * time.Millisecond

func (c *Catalog) checkLayer(ctx context.Context, id string, o *CheckOptions) ([]Fault, error) {
	var found []Fault
	add := func(kind FaultKind, reason string) {
		found = append(found, Fault{Kind: kind, Layer: id, Reason: reason})
	}
	l, err := c.Layer(id)
	if err != nil {
		if errors.Is(err, ErrUnknown) && !c.holdsTree(id) {
			return nil, nil // what a crash left of a layer, or one that is being made
		}
		add(FaultRecord, err.Error())
		return found, nil
	}
	if reason := checkParents(l, o.Homes); reason != "" {
		add(FaultRecord, reason)
	}
	ref, err := c.repo.Ref(layerRef(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if l.Applied() {
			add(FaultRef, "there is none")
		}
	case err != nil:
		add(FaultRef, err.Error())
	case !l.Applied():
		add(FaultRecord, "it names no commit, and the ref names "+ref.String())
		return found, nil
	case ref != l.Commit:
		add(FaultRef, "it names "+ref.String()+", and the record "+l.Commit.String())
	}
	if !l.Applied() {
		return found, nil
	}
	reason, err := store.InspectInodes(l.inodesPath(), l.TreeDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if reason != "" {
		add(FaultList, reason)
	}
	t := &treeCheck{l: l, o: o, ctx: ctx}
	err = t.run()
	if _, err := c.Layer(id); errors.Is(err, ErrUnknown) {
		return nil, nil // removed meanwhile
	}
	return append(found, t.found...), err
}

// holdsTree tells if there is a tree, whatever the record says.
func (c *Catalog) holdsTree(id string) bool {
	_, err := os.Lstat((&Layer{ID: id, catalog: c}).TreeDir())
	return err == nil
}

// checkParents says what is wrong with a record's ancestors.
func checkParents(l *Layer, homes Catalogs) string {
	if l.Parent == "" {
		return ""
	}
	p, err := homes.Find(l.Parent)
	if err != nil {
		return "parent " + l.Parent + ": " + err.Error()
	}
	if want := append([]string{p.ID}, p.Ancestors...); !slices.Equal(want, l.Ancestors) {
		return "its ancestors are not those of its parent"
	}
	return ""
}

// checkRefs looks for refs of layers that do not exist.
func (c *Catalog) checkRefs(report func(Fault)) error {
	for again := range 2 {
		refs, err := c.repo.Refs("layer")
		if err != nil {
			return fmt.Errorf("check layers: %w", err)
		}
		ids, err := c.IDs()
		if err != nil {
			return fmt.Errorf("check layers: %w", err)
		}
		for _, id := range ids {
			delete(refs, layerRef(id))
		}
		if len(refs) == 0 {
			return nil
		}
		if again == 0 {
			time.Sleep(recheck)
			continue
		}
		for ref, commit := range refs {
			report(Fault{Kind: FaultRef, Layer: strings.TrimPrefix(ref, "layer/"), Reason: "there is no such layer, and a ref to commit " + commit.String()})
		}
	}
	return nil
}

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
