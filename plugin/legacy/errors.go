package legacy

import (
	"os"

	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// sentinels are the errors that containers/storage looks for, by what driver says of an error.
var sentinels = map[driver.ErrorClass][]error{
	driver.ClassUnknownLayer:  {graphdriver.ErrLayerUnknown, os.ErrNotExist},
	driver.ClassPrerequisites: {graphdriver.ErrPrerequisites},
	driver.ClassFilesystem:    {graphdriver.ErrIncompatibleFS},
	driver.ClassNotSupported:  {graphdriver.ErrNotSupported},
}

// An upstreamError says what the driver's error says, and matches both that error and those that upstream knows.
type upstreamError struct {
	err       error
	sentinels []error
}

func (e *upstreamError) Error() string { return e.err.Error() }

func (e *upstreamError) Unwrap() []error { return append([]error{e.err}, e.sentinels...) }

// upstream makes err match the error that containers/storage has for its class, if it has one.
func upstream(err error) error {
	if err == nil {
		return nil
	}
	if s := sentinels[driver.ClassOf(err)]; s != nil {
		return &upstreamError{err: err, sentinels: s}
	}
	return err
}
