package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Ledger says what the layers of a catalog take, and what goes with them. It is for one question: it does not follow changes.
type Ledger struct {
	*store.Ledger
	catalog *Catalog
}

// OpenLedger opens a catalog's ledger, with what its file knows if useFile is set.
func OpenLedger(c *Catalog, useFile bool) *Ledger {
	return &Ledger{c.repo.OpenLedger(ledgerLayers{c}, useFile), c}
}

// LookAtCommits finds out what the layers' commits hold, and gives those that are there their places; with keep also what is missing to
// keep it.
func (l *Ledger) LookAtCommits(ctx context.Context, ids []string, keep bool) error {
	return l.inHome(l.Ledger.LookAtCommits(ctx, checkedIDs(ids), keep))
}

// Frees says of each of the sets of layers, which have places, what removing it alone would free.
func (l *Ledger) Frees(ctx context.Context, sets ...[]int32) ([]store.Frees, error) {
	each, err := l.Ledger.Frees(ctx, sets...)
	return each, l.inHome(err)
}

func (l *Ledger) inHome(err error) error {
	if err != nil {
		return fmt.Errorf("layers in %s: %w", l.catalog.home, err)
	}
	return nil
}

// checkedIDs are the ids that can be of layers.
func checkedIDs(ids []string) []string {
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		if checkLayerID(id) == nil {
			out = append(out, id)
		}
	}
	return out
}

// ledgerLayers tells a store's ledger about the layers of a catalog.
type ledgerLayers struct{ c *Catalog }

func (l ledgerLayers) Dir() *os.File { return l.c.layers }

func (l ledgerLayers) Ref(id string) string { return layerRef(id) }

func (l ledgerLayers) Parts() store.LayerParts {
	return store.LayerParts{
		Trees: []string{treeDirName, segmentName}, Upper: diffName, Empty: []string{diffName, workName, mergedName}, Files: []string{recordName, inodesName},
	}
}

func (l ledgerLayers) Commit(id string) (object.Checksum, error) {
	layer, err := l.c.load(id, false)
	if errors.Is(err, ErrUnknown) {
		return object.Checksum{}, fs.ErrNotExist
	}
	if err != nil {
		return object.Checksum{}, err
	}
	return layer.Commit, nil
}

func (l ledgerLayers) Sizes(ctx context.Context, commit object.Checksum, visit func(object.Checksum, int64)) error {
	return WalkCommit(ctx, l.c.repo, commit, func(e *Entry) error {
		if !e.Whiteout && e.Mode&unix.S_IFMT == unix.S_IFREG {
			visit(e.Checksum, e.Size)
		}
		return nil
	})
}

// Frees says of each of the sets of layers what removing it alone would free, and changes nothing.
func (c *Catalog) Frees(ctx context.Context, sets ...[]string) ([]store.Frees, error) {
	l := OpenLedger(c, false)
	places := make([][]int32, len(sets))
	for i, ids := range sets {
		for _, id := range ids {
			if err := checkLayerID(id); err != nil {
				return nil, err
			}
		}
		if err := l.LookAtCommits(ctx, ids, false); err != nil {
			return nil, err
		}
		for _, id := range ids {
			if at, _ := l.At(id); at != store.NoPlace {
				places[i] = append(places[i], at)
			}
		}
	}
	return l.Frees(ctx, places...)
}

// checkLedger compares the ledger, if there is one, with the layers.
func (c *Catalog) checkLedger(ctx context.Context, o *CheckOptions, report func(Fault)) error {
	if o.Quick {
		return nil
	}
	wrong, err := OpenLedger(c, true).Wrong(ctx, o.Only)
	for _, id := range wrong {
		report(Fault{Kind: FaultLedger, Layer: id, Reason: "what the ledger says is not what is there"})
	}
	return err
}

// mendLedger removes the ledger, which is made again by whoever needs it.
func (c *Catalog) mendLedger(dry bool) (string, error) {
	if !dry {
		if err := OpenLedger(c, false).Drop(); err != nil {
			return "", err
		}
	}
	return "the ledger was removed: du makes it again", nil
}
