package driver

import (
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// A recordMark tells one version of a record of containers/storage from another: each write of it makes a new file.
type recordMark struct {
	inode uint64
	ctime unix.Timespec
}

// unwritten knows whether this process may have changed a graphroot since it last wrote all of it to the disk.
type unwritten struct {
	mu      sync.Mutex
	changed bool          // through a driver
	records [6]recordMark // as they were when all was written, or when this process began
}

// change notes that a driver is about to change something.
func (u *unwritten) change() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changed = true
}

// take reports whether there may be something to write, given the records as they are, and takes it for written. A tag, or a
// container's new name, is nothing but a record.
func (u *unwritten) take(records [6]recordMark) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.changed || u.records != records
	u.changed, u.records = false, records
	return was
}

// markRecords looks at the records of containers/storage as they are now. What does not exist is all zeros. Records of images are left
// out where they are durable by themselves.
func (d *Driver) markRecords() (m [6]recordMark) {
	for i, kind := range []string{"layers", "containers", "images"} {
		if kind == "images" && d.dirSync {
			continue
		}
		for j, root := range []string{d.root, d.imageStore} {
			var st unix.Stat_t
			if root != "" && unix.Stat(filepath.Join(root, Name+"-"+kind, kind+".json"), &st) == nil {
				m[2*i+j] = recordMark{st.Ino, st.Ctim}
			}
		}
	}
	return m
}
