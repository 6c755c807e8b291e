package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Errors of opening a repository.
var (
	// ErrUnsupported is matched where the filesystem or the repository cannot serve: no hardlinks, another mode
	// than bare, a format from the future.
	ErrUnsupported = errors.New("not supported")
	// ErrReadOnly is matched by every call that would change a repository that is open for reading only.
	ErrReadOnly = errors.New("the repository is read-only")
)

// Errors of staging and publishing.
var (
	// ErrOtherMount is matched when a directory that was given is not under the repository's mount: link(2) does
	// not cross mounts, even of one filesystem.
	ErrOtherMount = errors.New("not on the mount of the repository")
	// ErrBusy is matched when something that is still in use would have to go.
	ErrBusy = errors.New("in use")
)

// A MissingError says that an object is not in the repository. It matches fs.ErrNotExist.
type MissingError struct{ Name object.Name }

func (e *MissingError) Error() string { return fmt.Sprintf("object %s is missing", e.Name) }

// Is matches fs.ErrNotExist.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

func isMissing(err error) bool {
	var m *MissingError
	return errors.As(err, &m)
}

// A CorruptError says that an object is not what its name says.
type CorruptError struct {
	Name   object.Name
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("object %s is damaged: %s", e.Name, e.Reason)
}

func isCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

// An AttributeError says that the filesystem refused an extended attribute.
type AttributeError struct {
	Name string // of the attribute
	Err  error
}

func (e *AttributeError) Error() string { return fmt.Sprintf("set attribute %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *AttributeError) Unwrap() error { return e.Err }
