package driver

import (
	"sync"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
)

// A mountTable counts the users of mount points in this process.
//
// The kernel, not the table, says what is mounted: another process (conmon's cleanup, an earlier run of this program) may have
// mounted or unmounted a layer meanwhile. So each call looks first, and corrects its count: nothing mounted is no user, and a mount
// that the table does not know has one user, whoever that is.
type mountTable struct {
	mu     sync.Mutex // held while mounting, so that two calls never mount one layer twice
	counts map[string]int

	mounted func(target string) (bool, error) // overlay.Mounted, or a test's
	unmount func(target string) error         // overlay.Unmount, or a test's
}

func newMountTable() *mountTable {
	return &mountTable{counts: make(map[string]int), mounted: overlay.Mounted, unmount: overlay.Unmount}
}

// current corrects and returns the count of target. The caller holds mu.
func (t *mountTable) current(target string) (int, error) {
	mounted, err := t.mounted(target)
	if err != nil {
		return 0, err
	}
	n := t.counts[target]
	switch {
	case !mounted:
		n = 0
	case n == 0:
		n = 1
	}
	return n, nil
}

func (t *mountTable) set(target string, n int) {
	if n <= 0 {
		delete(t.counts, target)
		return
	}
	t.counts[target] = n
}

// acquire adds a user of target, and calls mount if it is the first.
func (t *mountTable) acquire(target string, mount func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.current(target)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := mount(); err != nil {
			t.set(target, 0)
			return err
		}
	}
	t.set(target, n+1)
	return nil
}

// release removes a user of target, and unmounts it if that was the last. It reports whether target is now unmounted.
func (t *mountTable) release(target string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.current(target)
	if err != nil {
		return false, err
	}
	if n > 1 {
		t.set(target, n-1)
		return false, nil
	}
	t.set(target, 0)
	if n == 0 {
		return true, nil
	}
	return true, t.unmount(target)
}

// drop unmounts target, whoever uses it.
func (t *mountTable) drop(target string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(target, 0)
	return t.unmount(target)
}

// list returns the targets that this process knows and that are
// still mounted, with the number of their users.
func (t *mountTable) list() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]int, len(t.counts))
	for target := range t.counts {
		n, err := t.current(target)
		if err != nil || n == 0 {
			continue
		}
		out[target] = n
	}
	return out
}
