package layers

import (
	"errors"
	"fmt"
)

var (
	// ErrUnknown says that no such layer exists.
	ErrUnknown = errors.New("layer not known")
	// ErrExists says that a layer has content already.
	ErrExists = errors.New("layer has content already")
	// ErrInUse says that something still needs a layer.
	ErrInUse = errors.New("layer is in use")
	// ErrUnsupported says that a place cannot carry layers: no hardlinks, another driver's home, a format from the future.
	ErrUnsupported = errors.New("not supported")
)

// An EntryError says which entry of which layer cannot be stored, and why.
type EntryError struct {
	Layer string // the layer's id, "" while it has none
	Path  string // the entry's name as the tar has it, "" if the tar itself is at fault
	Err   error
}

// Error names the layer, the entry and the reason.
func (e *EntryError) Error() string {
	where := "layer tar"
	if e.Layer != "" {
		where = fmt.Sprintf("layer %s", e.Layer)
	}
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", where, e.Err)
	}
	return fmt.Sprintf("%s: entry %q: %v", where, e.Path, e.Err)
}

// Unwrap returns the reason.
func (e *EntryError) Unwrap() error { return e.Err }
