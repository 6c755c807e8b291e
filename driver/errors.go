package driver

import (
	"errors"
	"io/fs"

	"github.com/ostree-storage/ostree-storage/layers"
)

// Errors that New and the methods of a Driver return, wrapped.
var (
	// ErrUnknownLayer is for a layer that no store has. It matches fs.ErrNotExist.
	ErrUnknownLayer error = unknownLayer{}
	// ErrPrerequisites is for a host that lacks what the driver needs.
	ErrPrerequisites = errors.New("the ostree driver cannot work on this host")
	// ErrFilesystem is for a filesystem that cannot carry the driver.
	ErrFilesystem = errors.New("the ostree driver cannot work on this filesystem")
	// ErrNotSupported is for what the driver does not do.
	ErrNotSupported = errors.New("the ostree driver does not support this")
	// ErrOption is for an option that is unknown or malformed.
	ErrOption = errors.New("wrong option")
)

type unknownLayer struct{}

func (unknownLayer) Error() string        { return "unknown layer" }
func (unknownLayer) Is(target error) bool { return target == fs.ErrNotExist }

// An ErrorClass is what containers/storage can know of an error.
type ErrorClass int

// The classes. ClassOther has no counterpart there.
const (
	ClassOther         ErrorClass = iota
	ClassUnknownLayer             // graphdriver.ErrLayerUnknown, and os.ErrNotExist
	ClassPrerequisites            // graphdriver.ErrPrerequisites: probing goes on to other drivers
	ClassFilesystem               // graphdriver.ErrIncompatibleFS: likewise
	ClassNotSupported             // graphdriver.ErrNotSupported
)

// classes is the one table from errors, ours and those of the rooms below, to classes. The first match counts.
var classes = []struct {
	match error
	class ErrorClass
}{
	{ErrUnknownLayer, ClassUnknownLayer},
	{layers.ErrUnknown, ClassUnknownLayer},
	{ErrPrerequisites, ClassPrerequisites},
	{ErrFilesystem, ClassFilesystem},
	{layers.ErrUnsupported, ClassFilesystem},
	{ErrNotSupported, ClassNotSupported},
}

// ClassOf returns the class of an error.
func ClassOf(err error) ErrorClass {
	for _, c := range classes {
		if errors.Is(err, c.match) {
			return c.class
		}
	}
	return ClassOther
}
