package driver

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A recordMark tells one version of a record of containers/storage from another: each write of it makes a new file.
type recordMark struct {
	inode uint64
	ctime unix.Timespec
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
