package layers

import (
	"context"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Merged is what a mount of a chain of layers shows: OCI whiteouts and opaque directories applied, made from the commits' trees
// without reading a file.
type Merged struct{}

// Merge merges a chain, nearest first. Every layer must be applied.
func Merge(ctx context.Context, chain []*Layer) (*Merged, error) { panic("not written yet") }

// Walk calls fn for each entry in tree order; there are no whiteouts.
func (m *Merged) Walk(fn func(*Entry, *Layer) error) error { panic("not written yet") }

// Checksum names the merged tree: two chains that show the same have the same.
func (m *Merged) Checksum() object.Checksum { panic("not written yet") }

// A Form is a way to make a merged tree usable as one lower directory: a flat hardlink checkout now, an EROFS image later.
type Form interface {
	// Materialise makes m at the path dst, which does not exist.
	Materialise(ctx context.Context, m *Merged, dst string) error
}

// Flat is the Form of a hardlink checkout: files are links to the inodes in the layers' own tree/, so that hardlinks stay what they
// are and no inode appears twice.
type Flat struct{}

// Materialise implements Form.
func (Flat) Materialise(ctx context.Context, m *Merged, dst string) error { panic("not written yet") }

// Flatten is Flat.Materialise for a chain.
func Flatten(ctx context.Context, chain []*Layer, dst string) error { panic("not written yet") }
