package driver

// SetLink replaces the making of hardlinks, and returns what restores it.
func SetLink(f func(old, name string) error) (restore func()) {
	old := link
	link = f
	return func() { link = old }
}

// SetSegment sets how many layers are made one tree, and returns what restores it.
func SetSegment(n int) (restore func()) {
	old := segment
	segment = n
	return func() { segment = old }
}

// MountTable is mountTable for tests, with a kernel of their own.
type MountTable struct{ t *mountTable }

// NewMountTable makes a table over the given kernel.
func NewMountTable(mounted func(string) (bool, error), unmount func(string) error) *MountTable {
	t := newMountTable()
	t.mounted, t.unmount = mounted, unmount
	return &MountTable{t}
}

// Acquire is acquire.
func (m *MountTable) Acquire(target string, mount func() error) error {
	return m.t.acquire(target, mount)
}

// Release is release.
func (m *MountTable) Release(target string) (bool, error) { return m.t.release(target) }

// List is list.
func (m *MountTable) List() map[string]int { return m.t.list() }

// View makes an empty view and closes it.
func (d *Driver) View() error {
	v, err := d.newView()
	if err != nil {
		return err
	}
	return v.Close()
}

// RemoveStaleViews is removeStaleViews.
func (d *Driver) RemoveStaleViews() { d.removeStaleViews() }
