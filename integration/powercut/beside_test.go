package powercut_test

import "testing"

// A container that is mounted keeps containers/storage from ending its use of the driver, so that nobody syncs what it wrote last. On
// ext4 the directory of the image records needs no such sync, and all holds as if there were no container. On xfs the newest records may
// be those before the cut, whole: what is there is sound, and what is not comes back by the next pull.
func TestPodmanBesideContainers(t *testing.T) {
	onBoth(t, func(t *testing.T, kind string) {
		seed := seed()
		t.Logf("cuts on %s beside a container that is mounted, SEED=%d", kind, seed)
		w := newWorld(t, kind, seed)
		w.weak = kind == "xfs"
		w.m.must(w.call("create", "--name=mounted", "--network=none", w.base.ID, "/bin/busybox", "true"))
		for range cuts(t, &w.busy) {
			w.m.must(w.call("mount", "mounted")) // as a running one is; a boot forgets it
			w.round("cut", w.imageSteps(w.images[:parallel], 8), w.imageSteps(w.images[parallel:], 8))
			w.look()
			if t.Failed() {
				return
			}
		}
		w.storageCheck()
		w.report()
	})
}
