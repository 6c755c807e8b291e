package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ostree-storage/ostree-storage/store"
)

// A FaultKind says what of a layer is wrong.
type FaultKind string

// What may be wrong with a layer.
const (
	FaultRecord FaultKind = "record" // the record is missing, damaged, or at odds with the layers it names
	FaultRef    FaultKind = "ref"    // the ref does not name the record's commit, or there is one without a layer
	FaultList   FaultKind = "inodes" // the list of inodes is damaged
	FaultLedger FaultKind = "ledger" // what du knows of the layer is wrong
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

	seen *seenInodes
}

// seenInodes are what was found of inodes that trees share.
type seenInodes struct {
	mu     sync.Mutex
	reason map[uint64]string
}

func (s *seenInodes) of(ino uint64) (reason string, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason, known = s.reason[ino]
	return reason, known
}

func (s *seenInodes) add(ino uint64, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		s.reason = make(map[uint64]string)
	}
	s.reason[ino] = reason
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
	ids := o.Only
	if ids == nil {
		var err error
		if ids, err = c.IDs(); err != nil {
			return fmt.Errorf("check layers: %w", err)
		}
		slices.Sort(ids)
	}
	if err := c.checkEach(ctx, ids, &o, report); err != nil {
		return err
	}
	if err := c.checkLedger(ctx, &o, report); err != nil || o.Only != nil {
		return err
	}
	return c.checkRefs(report)
}

// CheckHome checks a catalog's repository and its layers at the same time: the largest tree is the work of one core, beside which the others
// read objects. It reports what Fsck finds, then what Check finds. The Tell of both may be called at once.
func CheckHome(ctx context.Context, c *Catalog, r store.FsckOptions, o CheckOptions, finding func(store.Finding), fault func(Fault)) error {
	var faults []Fault
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.repo.Fsck(ctx, r, finding) })
	g.Go(func() error { return c.Check(ctx, o, func(f Fault) { faults = append(faults, f) }) })
	if err := g.Wait(); err != nil {
		return err
	}
	for _, f := range faults {
		fault(f)
	}
	return nil
}

// checkEach checks layers on all cores, and reports in their order.
func (c *Catalog) checkEach(ctx context.Context, ids []string, o *CheckOptions, report func(Fault)) error {
	o.seen = new(seenInodes)
	var mu sync.Mutex
	waiting := make(map[int][]Fault) // what was found of layers that others come before
	next := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, id := range ids {
		g.Go(func() error {
			found, err := c.checkTwice(ctx, id, o)
			if err != nil {
				return fmt.Errorf("check layer %s: %w", id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for waiting[i] = found; ; next++ {
				found, ok := waiting[next]
				if !ok {
					return nil
				}
				delete(waiting, next)
				for _, f := range found {
					report(f)
				}
				if o.Tell != nil {
					o.Tell()
				}
			}
		})
	}
	return g.Wait()
}

// checkTwice looks again at a layer that seems to be faulty.
func (c *Catalog) checkTwice(ctx context.Context, id string, o *CheckOptions) ([]Fault, error) {
	found, err := c.checkLayer(ctx, id, o)
	if err != nil || len(found) == 0 {
		return found, err
	}
	time.Sleep(recheck)
	again := *o
	again.seen = new(seenInodes)
	return c.checkLayer(ctx, id, &again)
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
	if err == nil {
		var more []Fault
		more, err = c.checkSegment(ctx, l, o)
		found = append(found, more...)
	}
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
