package main

import (
	"io"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/drivers/overlay"
)

// upstreamOnly is a driver that reads what it is given and keeps nothing of it: what a pull takes with it is
// containers/storage's own, and no driver can be faster.
const upstreamOnly = "upstream-only"

func init() {
	err := graphdriver.Register(upstreamOnly, func(home string, o graphdriver.Options) (graphdriver.Driver, error) {
		d, err := overlay.Init(home, o)
		return discard{d}, err
	})
	if err != nil {
		panic(err)
	}
}

// discard is the overlay driver without the content of layers. It does not stage: the interface hides that.
type discard struct{ graphdriver.Driver }

func (discard) String() string { return upstreamOnly }

// ApplyDiff implements graphdriver.DiffDriver.
func (discard) ApplyDiff(_ string, o graphdriver.ApplyDiffOpts) (int64, error) {
	return io.Copy(io.Discard, o.Diff)
}
