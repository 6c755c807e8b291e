package driver

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
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
	mount, ok := mountID(graphroot)
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
