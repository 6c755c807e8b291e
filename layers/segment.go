package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
)

// A segment is so many layers of a chain as one flat checkout, in the directory of the uppermost of them. Segments are counted from the
// base layer, so that all chains over a layer share them. What lies below is known when a segment is made: it hides that, and
// no more. So it stands for its layers as long as they, and all below them, are the commits that they were.
//
//	segment/dirs    directories with nothing in them: overlayfs is to merge them with those in tree, as it merged those of the layers
//	segment/tree    the flat checkout, with whiteouts and opaque directories for what is below
//	segment/links   further names of inodes in tree whose link count is exact
//	segment/list    of each layer, from the uppermost one on, a line: what it was; then what is below (segment_list.go)
const (
	segmentName   = "segment"
	segmentDirs   = "dirs"
	segmentLinks  = "links"
	segmentLayers = "list"

	// defaultSegment is how many layers a segment has.
	defaultSegment = 64
	// longChain is from how many layers on a chain has segments. All that other programs make are shorter, and cost nothing more.
	longChain = 128
)

func (o *Options) segment() int {
	if o.Segment > 0 {
		return o.Segment
	}
	return defaultSegment
}

// segmented reports whether what lies over a chain is mounted with segments.
func (o *Options) segmented(chain int) bool {
	if o.Segment > 0 {
		return chain >= o.Segment
	}
	return chain >= longChain
}

// errPlain says that a chain has a layer that is no commit, no longer, or of another catalog.
var errPlain = errors.New("too many of the layers were written through a mount, or are of a read-only store")

// segmentDir is where the segment is whose uppermost layer l is.
func (l *Layer) segmentDir() string { return l.Dir() + "/" + segmentName }

// plain reports whether a layer shows what its commit is and no more, so that a segment can have it.
func (l *Layer) plain() (bool, error) {
	if !l.Applied() || l.Mapped() {
		return false, nil
	}
	loose, err := l.Loose()
	return !loose, err
}

// plainFrom returns from where on, down to the base layer, a chain is plain and of one catalog.
func (c *Catalog) plainFrom(chain []*Layer) (int, error) {
	all, err := EachOf(chain, func(l *Layer) (bool, error) {
		if l.catalog != c {
			return false, nil
		}
		return l.plain()
	})
	return len(all) - trailing(all), err
}

// trailing counts what is true at the end of a list.
func trailing(list []bool) int {
	n := 0
	for n < len(list) && list[len(list)-1-n] {
		n++
	}
	return n
}

// A segmentDraft is a segment in a stage.
type segmentDraft struct {
	path string
	top  *Layer // whose directory it is to be in
}

// draftSegments makes in a stage the segments that a chain lacks, all of them with anew. What it returns is durable after the next sync.
func (c *Catalog) draftSegments(ctx context.Context, stage *store.Stage, chain []*Layer, anew bool) ([]segmentDraft, error) {
	if !c.o.segmented(len(chain)) {
		return nil, nil
	}
	var drafts []segmentDraft
	k, plain := c.o.segment(), -1
	for i := len(chain) - k; i >= 0; i -= k {
		if !anew && exists(chain[i].segmentDir()) {
			continue
		}
		if plain < 0 {
			var err error
			if plain, err = c.plainFrom(chain); err != nil {
				return drafts, err
			}
		}
		if i < plain {
			break
		}
		d := segmentDraft{stage.Path() + "/" + segmentName + "." + strconv.Itoa(i), chain[i]}
		if err := draftSegment(ctx, d.path, chain[i:], k); err != nil {
			return drafts, errors.Join(fmt.Errorf("make one tree of layer %s and those below it: %w", chain[i].ID, err), os.RemoveAll(d.path))
		}
		drafts = append(drafts, d)
	}
	return drafts, nil
}

// draftSegment makes a segment of the first k layers of a chain.
func draftSegment(ctx context.Context, dir string, chain []*Layer, k int) error {
	list, err := listSegment(chain, k)
	if err != nil {
		return err
	}
	m, err := mergeOver(ctx, chain[:k], chain[k:])
	if err != nil {
		return err
	}
	for _, made := range []string{dir, dir + "/" + segmentLinks} {
		if err := os.Mkdir(made, 0o700); err != nil {
			return err
		}
	}
	if err := (Flat{spare: dir + "/" + segmentLinks}).Materialise(ctx, m, dir+"/"+treeDirName); err != nil {
		return err
	}
	if m.twice {
		if err := (Flat{twice: true}).Materialise(ctx, m, dir+"/"+segmentDirs); err != nil {
			return err
		}
	}
	return os.WriteFile(dir+"/"+segmentLayers, list.encode(), 0o600)
}

// place moves a segment to its layer, if that has none.
func (d *segmentDraft) place() error {
	err := os.Rename(d.path, d.top.segmentDir())
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil // that of another who staged over the same layers; this one goes with its stage
	}
	return err
}

func placeSegments(drafts []segmentDraft) error {
	for _, d := range drafts {
		if err := d.place(); err != nil {
			return err
		}
	}
	return nil
}

// replace is place, and takes the layer's segment into the stage if it has one.
func (d *segmentDraft) replace() error {
	to := d.top.segmentDir()
	err := unix.Renameat2(unix.AT_FDCWD, d.path, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if err == unix.ENOENT {
		return os.Rename(d.path, to)
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: d.path, New: to, Err: err}
	}
	return nil
}

// MakeSegments makes all segments of a chain anew, nearest first, whose layers are of catalog c. It is for chains that are
// longer than overlayfs takes, and were staged before there were segments or brought from elsewhere; all others have
// theirs since they were staged. The error matches ErrUnsupported if no segment can be made.
func MakeSegments(ctx context.Context, c *Catalog, chain []*Layer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("segments: %w", err)
		}
	}()
	stage, err := c.repo.NewStage(store.StageOptions{NoSync: c.o.NoSync})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	drafts, err := c.draftSegments(ctx, stage, chain, true)
	if err != nil {
		return err
	}
	if len(drafts) == 0 {
		return fmt.Errorf("%w: %w", errPlain, ErrUnsupported)
	}
	// Whoever finds one under its name takes it as it is.
	if err := c.repo.Sync(); err != nil {
		return err
	}
	for _, d := range drafts {
		if err := d.replace(); err != nil {
			return err
		}
	}
	return nil
}

// forgetSegments makes the segments invalid that have a layer, whose tree was mended, and with each of them those above. Containers may have
// them mounted, so the trees stay; they go with their layers.
func (c *Catalog) forgetSegments(id string) error {
	ids, err := c.IDs()
	if err != nil {
		return err
	}
	for _, top := range ids {
		list, err := c.readSegment(top)
		if err != nil || !slices.ContainsFunc(list.own, func(l segmentLayer) bool { return l.id == id }) {
			continue
		}
		if err := os.Remove((&Layer{ID: top, catalog: c}).segmentDir() + "/" + segmentLayers); err != nil {
			return err
		}
	}
	return nil
}

// readSegment reads the list of the segment whose uppermost layer is top.
func (c *Catalog) readSegment(top string) (list segmentList, err error) {
	path := top + "/" + segmentName + "/" + segmentLayers
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(c.layers.Fd()), path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return list, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b, err := readAll(fd)
	if err != nil {
		return list, &os.PathError{Op: "read", Path: path, Err: err}
	}
	if list, err = decodeSegment(string(b), c.o.segment()); err != nil {
		return list, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}
