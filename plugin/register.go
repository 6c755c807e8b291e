package plugin

import (
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/unshare"

	"github.com/ostree-storage/ostree-storage/driver"
)

func init() {
	if err := graphdriver.Register(driver.Name, Init); err != nil {
		panic(err)
	}
}

// Init opens the driver whose home is the directory home. It is what GetDriver calls for the name "ostree".
func Init(home string, o graphdriver.Options) (graphdriver.Driver, error) {
	d, err := driver.New(home, driver.Options{
		Root:       o.Root,
		RunRoot:    o.RunRoot,
		ImageStore: imageStore(o),
		Settings:   o.DriverOptions,
		Rootless:   unshare.IsRootless(),
		WriteTar:   writeTar,
	})
	if err != nil {
		return nil, upstream(err)
	}
	// The type arguments have to be inferred here, outside of any generic function: only here are they concrete.
	return newSurface(adapter{d}), nil
}
