package driver

import "sync"

// enter begins the use of the stores, and opens them if they were closed: containers/storage may go on with a driver after its Cleanup,
// and after it took another one. The caller must call leave once, or more often.
func (d *Driver) enter() (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stores == nil {
		if d.stores, err = d.openStores(); err != nil {
			d.stores = nil
			return nil, err
		}
	}
	d.users++
	return sync.OnceFunc(d.leave), nil
}

// leave ends what enter began.
func (d *Driver) leave() {
	d.mu.Lock()
	d.users--
	replaced := d.replaced
	d.mu.Unlock()
	if replaced {
		d.retire()
	}
}

// retire closes the stores as soon as nothing uses them: nobody will call Cleanup.
func (d *Driver) retire() {
	d.mu.Lock()
	d.replaced = true
	d.mu.Unlock()
	if err := d.closeIdle(); err != nil {
		debug("close the stores of a driver that was replaced: %v", err)
	}
}

// closeIdle closes the stores if nothing uses them.
func (d *Driver) closeIdle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users > 0 || d.stores == nil {
		return nil
	}
	s := d.stores
	d.stores = nil
	return s.close()
}
