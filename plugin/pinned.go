package plugin

import (
	"go.podman.io/storage/pkg/unshare"

	"github.com/ostree-storage/ostree-storage/driver"
)

// PinnedStore returns where the pinned store of a graphroot is, whether or not it exists, with the driver options that a program was
// given and the driver's own configuration file. It returns "" if there is to be none.
func PinnedStore(graphroot, runroot string, options []string) (string, error) {
	s, err := driver.LoadSettings(driver.Options{Settings: options, Rootless: unshare.IsRootless()})
	if err != nil {
		return "", err
	}
	return driver.PinnedStore(s.PinnedStore, graphroot, runroot), nil
}

// SharedTimes tells if the option mtime=shared holds, with the same options.
func SharedTimes(options []string) (bool, error) {
	s, err := driver.LoadSettings(driver.Options{Settings: options, Rootless: unshare.IsRootless()})
	return s.SharedTimes, err
}
