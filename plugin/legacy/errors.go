package legacy

import (
	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// sentinels are the errors that containers/storage looks for, by what driver says of an error.
var sentinels = map[driver.ErrorClass]error{
	driver.ClassUnknownLayer:  graphdriver.ErrLayerUnknown,
	driver.ClassPrerequisites: graphdriver.ErrPrerequisites,
	driver.ClassFilesystem:    graphdriver.ErrIncompatibleFS,
	driver.ClassNotSupported:  graphdriver.ErrNotSupported,
}

// An upstreamError says what the driver's error says, and matches both that error and the one upstream knows.
type upstreamError struct {
	err, sentinel error
}

func (e *upstreamError) Error() string   { return e.err.Error() }
func (e *upstreamError) Unwrap() []error { return []error{e.err, e.sentinel} }

// upstream makes err match the error that containers/storage has for its class, if it has one.
func upstream(err error) error {
	if err == nil {
		return nil
	}
	if s := sentinels[driver.ClassOf(err)]; s != nil {
		return &upstreamError{err: err, sentinel: s}
	}
	return err
}
