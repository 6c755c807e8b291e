package layers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// A Layer is what a catalog recorded of one layer. It does not follow later changes.
type Layer struct {
	ID        string
	Parent    string          // "" for a base layer
	Ancestors []string        // ids from the parent to the base layer, any of which may be in another catalog; not set in a chain but for its first
	Commit    object.Checksum // zero while nothing was applied
	Size      int64           // bytes, as Staged.Size
	Entries   int64           // entries of the commit's tree, the root included
	ReadWrite bool

	catalog *Catalog
	brief   bool // the record leaves the ancestors to that of the parent
}

// Catalog returns the catalog that has the layer.
func (l *Layer) Catalog() *Catalog { return l.catalog }

// Dir is the layer's directory.
func (l *Layer) Dir() string { return l.catalog.home + "/" + layersName + "/" + l.ID }

// TreeDir is the immutable checkout of the commit. It exists if Applied.
func (l *Layer) TreeDir() string { return l.Dir() + "/" + treeDirName }

// DiffDir is the overlay upper directory of a layer that is or was writable.
func (l *Layer) DiffDir() string { return l.Dir() + "/" + diffName }

// WorkDir is overlay's work directory.
func (l *Layer) WorkDir() string { return l.Dir() + "/" + workName }

// MergedDir is where the layer is mounted.
func (l *Layer) MergedDir() string { return l.Dir() + "/" + mergedName }

// MappedDir holds what is below a layer with other owners, if there is a copy with other owners.
func (l *Layer) MappedDir() string { return l.Dir() + "/" + mappedName }

func (l *Layer) inodesPath() string { return l.Dir() + "/" + inodesName }

// Applied reports whether the layer has a commit, and so TreeDir.
func (l *Layer) Applied() bool { return !l.Commit.IsZero() }

// Loose reports whether DiffDir counts: nothing was applied, or something was written through a mount.
func (l *Layer) Loose() (bool, error) {
	if !l.Applied() {
		return true, nil
	}
	return holdsNames(unix.AT_FDCWD, l.DiffDir())
}

// holdsNames reports whether there is a directory with something in it.
func holdsNames(dir int, path string) (bool, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(dir, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var b [1024]byte // more than "." and ".." take, and room for the longest name
	n, err := retryEINTR(func() (int, error) { return unix.ReadDirent(fd, b[:]) })
	if err != nil {
		return false, &os.PathError{Op: "read", Path: path, Err: err}
	}
	_, _, names := unix.ParseDirent(b[:n], -1, nil)
	return len(names) > 0, nil
}

// Mapped reports whether MappedDir is there.
func (l *Layer) Mapped() bool { return exists(l.MappedDir()) }

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// Lowers lists the directories that the layer shows to layers above it, nearest first: DiffDir if Loose, TreeDir if Applied.
func (l *Layer) Lowers() ([]string, error) {
	loose, err := l.Loose()
	if err != nil {
		return nil, fmt.Errorf("look at layer %s: %w", l.ID, err)
	}
	var dirs []string
	if loose {
		dirs = append(dirs, l.DiffDir())
	}
	if l.Applied() {
		dirs = append(dirs, l.TreeDir())
	}
	return dirs, nil
}

// rootMeta returns owner and mode of the layer's root as a layer above inherits them. Upstream hands the mode to mkdir(2), under the
// umask of all its programs.
func (l *Layer) rootMeta() (RootMeta, error) {
	dirs, err := l.Lowers()
	if err != nil {
		return RootMeta{}, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dirs[0], &st); err != nil {
		return RootMeta{}, &os.PathError{Op: "lstat", Path: dirs[0], Err: err}
	}
	return RootMeta{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o755}, nil
}

// Open returns the bytes of a regular file by the name that it had in the layer tar: what ApplyDiff was given under that
// name, the last one if there were several. Symlinks of the layer are followed in its root, except the last component.
// The error matches fs.ErrNotExist if there is no such file.
func (l *Layer) Open(tarName string) (io.ReadCloser, error) {
	dir := l.TreeDir()
	if !l.Applied() {
		dir = l.DiffDir()
	}
	root, err := retryEINTR(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	f, err := openNamed(root, tarName)
	if err != nil {
		return nil, fmt.Errorf("open a file of layer %s: %w", l.ID, err)
	}
	return f, nil
}

// openNamed opens a regular file under root by its name in a tar.
func openNamed(root int, tarName string) (*os.File, error) {
	dir, base := splitName(tarName)
	fail := func(err error) (*os.File, error) { return nil, &os.PathError{Op: "open", Path: tarName, Err: err} }
	parent, err := openTarDir(root, dir)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(parent)
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(parent, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err == unix.ELOOP || err == unix.ENXIO || err == unix.ENOTDIR {
		err = fs.ErrNotExist // a symlink, a socket
	}
	if err != nil {
		return fail(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return fail(errors.Join(err, fs.ErrNotExist))
	}
	return os.NewFile(uintptr(fd), tarName), nil
}

// openTarDir opens a directory as splitName returns it. A path that is too long for one call is taken in pieces, without symlinks.
func openTarDir(root int, dir string) (int, error) {
	if len(dir) <= maxPath {
		return openInRoot(root, dir)
	}
	at, err := retryEINTR(func() (int, error) {
		return unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	for rest := dir; rest != "" && err == nil; {
		var piece string
		piece, rest = cutPath(rest)
		if piece == "" {
			continue
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
		var next int
		next, err = retryEINTR(func() (int, error) { return unix.Openat2(at, piece, &how) })
		unix.Close(at)
		at = next
	}
	return at, err
}

// cutPath cuts a long path at a slash.
func cutPath(path string) (piece, rest string) {
	for path != "" && path[0] == '/' {
		path = path[1:]
	}
	if len(path) <= maxPath {
		return path, ""
	}
	i := maxPath
	for path[i] != '/' {
		i--
	}
	return path[:i], path[i+1:]
}
