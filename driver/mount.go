package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/selinux"
)

// chain returns a layer and those below it, nearest first.
func (d *Driver) chain(id string) ([]*layers.Layer, error) {
	chain, err := d.stores.all.Chain(id)
	if errors.Is(err, layers.ErrUnknown) {
		return nil, fmt.Errorf("%w: %w", err, ErrUnknownLayer)
	}
	return chain, err
}

// ownDirs returns the directories of a layer, nearest first: what was written through a mount, what came from a tar, and what
// UpdateLayerIDMap copied from below.
func ownDirs(l *layers.Layer) ([]string, error) {
	dirs, err := l.Lowers()
	if err != nil {
		return nil, err
	}
	if l.Mapped() {
		dirs = append(dirs, l.MappedDir())
	}
	return dirs, nil
}

// lowerDirs returns the directories of a chain, nearest first.
func lowerDirs(chain []*layers.Layer) ([]string, error) {
	var dirs []string
	for _, l := range chain {
		own, err := ownDirs(l)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, own...)
	}
	return dirs, nil
}

// runDir returns a directory under the runroot that is a layer's mount point if the layer is not of our main store. Others
// may have it mounted elsewhere, and its own directory need not be writable.
func (d *Driver) runDir(id string) string { return filepath.Join(d.runHome, "mounts", id, "merged") }

// target returns where a layer is mounted.
func (d *Driver) target(l found) string {
	if l.catalog == d.stores.main {
		return l.MergedDir()
	}
	return d.runDir(l.ID)
}

// Get mounts a layer and returns where. Each Get needs a Put; a layer that is mounted already is not mounted again, whatever the
// options are. With the option "ro", and for a layer of a read-only store, the mount has no upper directory. Otherwise what is
// written goes to the layer's `diff`, never to its `tree`, whose files are objects.
func (d *Driver) Get(id string, o MountOptions) (string, error) {
	leave, err := d.enter()
	if err != nil {
		return "", err
	}
	defer leave()
	l, err := d.find(id)
	if err != nil {
		return "", fmt.Errorf("mount: %w", err)
	}
	target := d.target(l)
	err = d.mounts.acquire(target, func() error { return d.mount(l, o, target) })
	if err != nil {
		return "", fmt.Errorf("mount layer %q: %w", id, err)
	}
	return target, nil
}

// mount mounts a layer at target, which it makes.
func (d *Driver) mount(l found, o MountOptions, target string) error {
	extra := o.Options
	if len(extra) == 0 {
		extra = d.settings.MountOptions
	}
	readOnly := slices.Contains(extra, "ro") || !d.stores.owns(l.catalog)
	extra, _, err := filterMountOptions(slices.DeleteFunc(slices.Clone(extra), func(s string) bool { return s == "ro" }))
	if err != nil {
		return err
	}
	m, err := d.spec(l, o.Mappings, o.Unmapped, readOnly)
	if err != nil {
		return err
	}
	if m.Label, err = selinux.MountLabel(o.Label); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	m.Target = target
	m.Extra = extra
	m.Volatile = o.Volatile && !readOnly && d.features.Volatile
	if m.Work != "" {
		if err := forgetVolatile(m.Work); err != nil {
			return err
		}
	}
	return m.Do()
}

// forgetVolatile removes the mark that a volatile mount leaves in its work directory, for the kernel refuses the directory
// with it: whoever asked for a volatile mount knew that a crash may cost what was written, and mounts the layer again.
func forgetVolatile(work string) error {
	return os.RemoveAll(filepath.Join(work, "work", "incompat", "volatile"))
}

// spec says how to mount a layer, all but where and with what options of the caller. With unmapped, maps say who root is and no more.
func (d *Driver) spec(l found, maps Mappings, unmapped, readOnly bool) (*overlay.Mount, error) {
	own, err := ownDirs(l.Layer)
	if err != nil {
		return nil, err
	}
	written := own[0] == l.DiffDir()
	room := overlay.MaxLowers - len(own)
	if written && !readOnly {
		room++
	}
	below, mapped, err := d.below(l.Layer, room)
	if err != nil {
		return nil, err
	}
	m := &overlay.Mount{ReadOnly: readOnly, UserXattr: d.userXattr(), Empty: d.emptyDir()}
	// A chain whose owners UpdateLayerIDMap changed has the container's already, whatever the mounts could do by now.
	mapped = mapped || l.Mapped()
	if !unmapped && len(maps.UIDs) > 0 && len(maps.GIDs) > 0 && !mapped && d.SupportsShifting(maps) {
		if m.IDMap, err = idMapOf(maps); err != nil {
			return nil, err
		}
	}
	switch {
	case !readOnly:
		if err := prepareUpper(l.Layer, written, maps); err != nil {
			return nil, err
		}
		m.Upper, m.Work = l.DiffDir(), l.WorkDir()
		if written {
			own = own[1:]
		}
	case written && m.IDMap != nil:
		// What was written through a mount has its final owners; the id map is for what lies below.
		m.Upper, own = own[0], own[1:]
	}
	m.Lowers = append(own, below...)
	return m, nil
}

// prepareUpper gives the root of a layer's upper directory the owner that root has in the container. Of an image layer that nothing
// was written to it makes a copy of the image's root: it was made before anybody knew that.
func prepareUpper(l *layers.Layer, written bool, maps Mappings) error {
	if !written {
		if err := copyRoot(l.TreeDir(), l.DiffDir()); err != nil {
			return err
		}
	}
	uid, gid, err := maps.root()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(l.DiffDir(), &st); err != nil {
		return &os.PathError{Op: "lstat", Path: l.DiffDir(), Err: err}
	}
	if int(st.Uid) == uid && int(st.Gid) == gid {
		return nil
	}
	return os.Lchown(l.DiffDir(), uid, gid)
}

// copyRoot gives the directory to the owner, mode and times of the directory from.
func copyRoot(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: from, Err: err}
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: to, Err: err}
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: to, Err: err}
	}
	return nil
}

// emptyDir returns an empty directory beside the layers, for overlay wants a lower where there is none. It is made when first needed.
func (d *Driver) emptyDir() string {
	dir := filepath.Join(d.home, "empty")
	if err := os.Mkdir(dir, 0o555); err != nil && !errors.Is(err, os.ErrExist) {
		return ""
	}
	return dir
}

// Put undoes one Get. A layer that is not mounted is no error; the error for one that does not exist matches fs.ErrNotExist.
func (d *Driver) Put(id string) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	l, err := d.find(id)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	target := d.target(l)
	unmounted, err := d.mounts.release(target)
	if err != nil {
		return fmt.Errorf("unmount layer %q: %w", id, err)
	}
	if !unmounted {
		return nil
	}
	if target != l.MergedDir() {
		_ = os.Remove(target)
		_ = os.Remove(filepath.Dir(target))
	}
	return nil
}
