package driver

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/graphroots"
)

const (
	pinnedNone     = "none"
	pinnedFallback = "/var/lib/containers/pinned"
)

// PinnedStore returns where the pinned store of a graphroot is, whether or not it exists: outside of graphroot and runroot, because
// `system reset`, `crio wipe` and others remove these two whole, and on graphroot's own mount where there is such a place, because a
// pin is made of hardlinks. It returns "" for the setting "none".
func PinnedStore(setting, graphroot, runroot string) string {
	switch setting {
	case pinnedNone:
		return ""
	case "":
	default:
		return setting
	}
	graphroot = realPath(graphroot)
	runroot = realPath(runroot)
	there := graphroot
	for !exists(there) { // after a wipe it is where it was
		there = filepath.Dir(there)
	}
	mount, ok := mountID(there)
	if !ok {
		return filepath.Join(filepath.Dir(graphroot), "pinned")
	}
	for dir := filepath.Dir(graphroot); ; dir = filepath.Dir(dir) {
		if m, ok := mountID(dir); !ok || m != mount {
			return pinnedFallback
		}
		if !within(dir, runroot) {
			return filepath.Join(dir, "pinned")
		}
		if dir == "/" {
			return pinnedFallback
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || path == "/" || path == "."
}

// registerWith notes in the pinned store that this graphroot uses it, so that unpinning an image asks this one first: layers that come in
// now may get parents there. A pinned store that this user cannot write to is none that he can remove from.
func (d *Driver) registerWith(others []additionalStore) {
	for _, o := range others {
		if !o.pinned || o.catalog == nil {
			continue
		}
		for _, root := range []string{d.root, d.imageStore} {
			if root == "" {
				continue
			}
			if err := graphroots.Register(o.path, root, filepath.Dir(d.runHome)); err != nil {
				debug("register %s with the pinned store %s: %v", root, o.path, err)
			}
		}
	}
}

// realPath follows symbolic links as far as the path exists.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return dir != "" && dir != "." && (path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/"))
}

// mountID returns the mount that a path is on. Two paths of one filesystem can be on two mounts, and then no link joins them.
func mountID(path string) (uint64, bool) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, false
	}
	return st.Mnt_id, true
}

// readableStore reports why the store at path cannot be used read-only, or nil. containers/storage opens these two lock files, makes
// them where they are missing, and fails as a whole where it cannot.
func readableStore(path string) error {
	for _, lock := range []string{"images", "layers"} {
		f, err := os.Open(filepath.Join(path, Name+"-"+lock, lock+".lock"))
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
