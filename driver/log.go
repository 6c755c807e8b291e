package driver

import "github.com/sirupsen/logrus"

// debug writes a line to the host program's log. What matters to a caller is an error; this is for what was passed over.
func debug(format string, args ...any) { logrus.Debugf("ostree: "+format, args...) }
