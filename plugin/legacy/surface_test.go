package legacy_test

import (
	"testing"

	graphdriver "github.com/containers/storage/drivers"

	"github.com/ostree-storage/ostree-storage/driver"
)

// newDriver makes a driver in a temporary graphroot, as containers/storage does.
func newDriver(t *testing.T, options ...string) graphdriver.Driver {
	t.Helper()
	d, err := graphdriver.GetDriver(driver.Name, graphdriver.Options{
		Root: t.TempDir(), RunRoot: t.TempDir(), DriverOptions: append(options, noPins),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestInterfaces holds which of its optional interfaces containers/storage finds. One that half works is worse than none.
func TestInterfaces(t *testing.T) {
	d := newDriver(t)
	if _, ok := d.(graphdriver.DiffGetterDriver); !ok {
		t.Error("no DiffGetterDriver: images of additional stores cannot be saved")
	}
	if _, ok := d.(graphdriver.DriverWithDiffer); ok {
		t.Error("DriverWithDiffer is claimed")
	}
	if _, ok := d.(graphdriver.AdditionalLayerStoreDriver); ok {
		t.Error("AdditionalLayerStoreDriver is claimed")
	}
	if _, ok := d.(graphdriver.CapabilityDriver); ok {
		t.Error("CapabilityDriver is claimed")
	}
	if d.String() != driver.Name {
		t.Errorf("the driver is called %q", d.String())
	}
}
