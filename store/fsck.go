package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// FsckOptions bound a check.
type FsckOptions struct {
	Quick   bool // do not read the bodies of files: names, metadata and reachability only
	Workers int  // how many objects to hash at once; 0 means all cores

	// Of Parts equal parts of the files, read the bodies of part number Part, from 1, only. With Parts 0 all are read.
	Part, Parts int

	// Tell, if not nil, gets how many of the directories of objects are read. The rest of a check is short.
	Tell func(done int)
}

// ObjectDirs is how many directories of objects there are at most.
const ObjectDirs = 256

// skips tells if the body of a file is not to be read.
func (o *FsckOptions) skips(c object.Checksum) bool {
	return o.Quick || o.Parts > 1 && (int(c[0])<<8|int(c[1]))%o.Parts != o.Part-1
}

// A FindingKind says what is wrong.
type FindingKind string

// What may be wrong.
const (
	Missing FindingKind = "missing" // an object that a commit reaches is not there
	Corrupt FindingKind = "corrupt" // an object is not what its name says
	Foreign FindingKind = "foreign" // a file under objects or lanes is not called like one
	BadRef  FindingKind = "ref"     // a ref cannot be read or names no commit
	BadLane FindingKind = "lane"    // a lane is not the file, or has not the time, that its name says
	Index   FindingKind = "index"   // the index counts what commits reach wrongly; Prune makes it anew
)

// A Finding is one thing that is wrong.
type Finding struct {
	Kind   FindingKind
	Object object.Name // the object that is meant, if any
	Path   string      // relative to the repository
	Refs   []string    // paths of the refs that reach the object
	Reason string
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s: %s", f.Path, f.Kind, f.Reason)
	if len(f.Refs) > 0 {
		s += " (reached by " + strings.Join(f.Refs, ", ") + ")"
	}
	return s
}

// maxFindings bounds what one check keeps; whoever has more has lost the disk.
const maxFindings = 100_000

// Fsck reads everything and calls report for each thing that is wrong, from the calling goroutine. It changes nothing,
// needs no lock while it reads, and looks twice at what seems wrong, so that what is published or removed meanwhile is no
// finding.
func (r *Repo) Fsck(ctx context.Context, o FsckOptions, report func(Finding)) error {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	x := &check{r: r.root, o: o, commits: map[object.Checksum]struct{}{}, present: map[object.Name]struct{}{}}
	err := x.objects(ctx)
	if err == nil {
		err = x.lanes(ctx)
	}
	if err == nil {
		err = x.reach(ctx)
	}
	if err == nil {
		err = x.refs()
	}
	if err == nil {
		err = x.index(ctx)
	}
	if err == nil {
		err = x.confirm(ctx)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", r.root.path, err)
	}
	for _, f := range x.found {
		report(f)
	}
	return nil
}

// A check is one run of Fsck.
type check struct {
	r       *root
	o       FsckOptions
	present map[object.Name]struct{}
	commits map[object.Checksum]struct{}

	mu    sync.Mutex
	found []Finding
}

var errTooMany = errors.New("too many findings")

func (x *check) add(f Finding) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.found) >= maxFindings {
		return errTooMany
	}
	x.found = append(x.found, f)
	return nil
}

// known are the extensions of files under objects that are no objects of ours, but libostree's.
var known = []string{".commitmeta", ".tombstone-commit", ".payload-link", ".file-xattrs", ".file-xattrs-link"}

// objects lists and verifies all objects.
func (x *check) objects(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(x.o.Workers)
	last, done := "", 0
	err := x.r.eachObject(func(path string) error {
		if x.o.Tell != nil && path[:2] != last {
			last = path[:2]
			x.o.Tell(done)
			done++
		}
		n, err := object.ParseLoosePath(path)
		if err != nil {
			for _, ext := range known {
				if strings.HasSuffix(path, ext) {
					return nil
				}
			}
			return x.add(Finding{Kind: Foreign, Path: "objects/" + path, Reason: "not the name of an object"})
		}
		x.present[n] = struct{}{}
		if n.Type == object.TypeCommit {
			x.commits[n.Checksum] = struct{}{}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		g.Go(func() error { return x.object(n) })
		return nil
	})
	return errors.Join(err, g.Wait())
}

// object verifies one object.
func (x *check) object(n object.Name) error {
	reason, err := x.verify(n)
	if err == unix.ENOENT {
		return nil // pruned meanwhile; if it is missed, reach says so
	}
	if err != nil {
		reason = err.Error()
	}
	if reason == "" {
		return nil
	}
	return x.add(Finding{Kind: Corrupt, Object: n, Path: "objects/" + n.LoosePath(), Reason: reason})
}

func (x *check) verify(n object.Name) (string, error) {
	dir := int(x.r.objects.Fd())
	if n.Type != object.TypeFile || !x.o.skips(n.Checksum) {
		return x.r.verify(dir, n.LoosePath(), n)
	}
	var st unix.Stat_t
	if err := lstat(dir, n.LoosePath(), &st); err != nil {
		return "", err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFLNK {
		return fmt.Sprintf("it is neither file nor symlink (mode %o)", st.Mode), nil
	}
	return "", nil
}

// lanes verifies the lanes: each is a file object in all but its time.
func (x *check) lanes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(x.o.Workers)
	err := x.r.eachLane(func(path string) error {
		l, err := parseLane(path)
		if err != nil {
			return x.add(Finding{Kind: Foreign, Path: lanesDir + "/" + path, Reason: err.Error()})
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		g.Go(func() error { return x.lane(l) })
		return nil
	})
	return errors.Join(err, g.Wait())
}

func (x *check) lane(l laneID) error {
	reason := x.laneReason(l)
	if reason == "" {
		return nil
	}
	return x.add(Finding{
		Kind: BadLane, Object: object.Name{Checksum: l.sum, Type: object.TypeFile},
		Path: lanesDir + "/" + l.path(), Reason: reason,
	})
}

// laneReason says what is wrong with a lane.
func (x *check) laneReason(l laneID) string {
	var st unix.Stat_t
	err := lstat(int(x.r.lanes.Fd()), l.path(), &st)
	if err == unix.ENOENT {
		return ""
	}
	if err != nil {
		return err.Error()
	}
	if t := timeOf(&st); l.time != noTime && t != l.time {
		return fmt.Sprintf("its time is %d.%09d", t.Sec, t.Nsec)
	}
	if x.o.skips(l.sum) {
		return ""
	}
	reason, err := x.r.verifyLane(l)
	if err != nil && err != unix.ENOENT {
		return err.Error()
	}
	return reason
}
