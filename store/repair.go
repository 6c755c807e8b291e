package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// MendOptions say where good copies may be.
type MendOptions struct {
	Files   []string // paths of files that may be a file object: names of it in trees
	Sources []*Repo  // other repositories, of any filesystem
	DryRun  bool     // only look
}

// ErrNoCopy is matched when no good copy of an object is anywhere.
var ErrNoCopy = errors.New("no good copy is known")

// Mend puts a good copy of the object n in its place, if what is there is missing or damaged, and returns where that is from: "" if
// nothing was wrong. Copies are looked for among the object's lanes, then in Files, then in Sources; each is verified before, and the
// new object before it gets its name. What is there is replaced and not deleted without a copy. The error matches ErrNoCopy.
// Trees keep the inode that they have; where that is the damaged one, they must be given another.
func (r *Repo) Mend(ctx context.Context, n object.Name, o MendOptions) (from string, err error) {
	if err := r.root.writable(); err != nil && !o.DryRun {
		return "", err
	}
	reason, err := r.root.verify(int(r.root.objects.Fd()), n.LoosePath(), n)
	if err == nil && reason == "" {
		return "", nil
	}
	for _, c := range r.copies(n, o) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if !r.root.isCopy(c, n) {
			continue
		}
		if o.DryRun {
			return c, nil
		}
		if err := r.replace(ctx, n, c); err != nil {
			return "", fmt.Errorf("mend %s from %s: %w", n, c, err)
		}
		return c, nil
	}
	return "", fmt.Errorf("mend %s: %w", n, ErrNoCopy)
}

// isCopy tells if the file at a path is the object n.
func (r *root) isCopy(path string, n object.Name) bool {
	dir, err := openDir(unix.AT_FDCWD, filepath.Dir(path))
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	reason, err := r.verify(dir, filepath.Base(path), n)
	return err == nil && reason == ""
}

// copies lists the paths where a good copy may be.
func (r *Repo) copies(n object.Name, o MendOptions) []string {
	var out []string
	for _, repo := range append([]*Repo{r}, o.Sources...) {
		if repo != r {
			out = append(out, repo.root.path+"/objects/"+n.LoosePath())
		}
		if n.Type == object.TypeFile && repo.root.lanes != nil {
			hex := n.Checksum.String()
			lanes, _ := filepath.Glob(filepath.Join(escapeGlob(repo.root.path), lanesDir, hex[:2], hex[2:]+".*"))
			out = append(out, lanes...)
		}
		if repo == r {
			out = append(out, o.Files...)
		}
	}
	return out
}

var globEscaper = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

func escapeGlob(path string) string { return globEscaper.Replace(path) }

// replace makes a copy of the file from, verifies it, and renames it to the object's name.
func (r *Repo) replace(ctx context.Context, n object.Name, from string) (err error) {
	stage, err := r.NewStage(StageOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	const name = "mended"
	own := int(stage.Dir().Fd())
	if err := copyWhole(own, name, from); err != nil {
		return err
	}
	reason, err := r.root.verify(own, name, n)
	if err == nil && reason != "" {
		err = &CorruptError{n, reason}
	}
	if err != nil {
		return err
	}
	if err := r.Sync(); err != nil {
		return err
	}
	unlock, err := r.root.lockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	objects := int(r.root.objects.Fd())
	if err := r.root.disk.mkdir(objects, n.LoosePath()[:2]); err != nil && err != unix.EEXIST {
		return err
	}
	if err := r.root.disk.rename(own, name, objects, n.LoosePath()); err != nil {
		return placeError("rename", n.LoosePath(), err)
	}
	return r.Sync()
}

// copyWhole makes name in dir what the file from is: content, owner, mode, attributes, time.
func copyWhole(dir int, name, from string) error {
	parent, err := openDir(unix.AT_FDCWD, filepath.Dir(from))
	if err != nil {
		return placeError("open", filepath.Dir(from), err)
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	fd, err := openInode(parent, filepath.Base(from), &st)
	if err != nil {
		return placeError("open", from, err)
	}
	h, err := headerOf(fd, parent, filepath.Base(from), &st)
	var in *os.File
	if fd >= 0 {
		in = os.NewFile(uintptr(fd), from)
		defer in.Close()
	}
	if err != nil {
		return placeError("read", from, err)
	}
	if fd < 0 {
		return copyLink(dir, name, h, &st)
	}
	to, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return placeError("create", name, err)
	}
	out := os.NewFile(uintptr(to), name)
	if unix.IoctlFileClone(to, fd) != nil {
		_, err = io.Copy(out, in)
	}
	if err == nil {
		_, err = finish(to, &item{header: *h, time: timeOf(&st)}, h.Xattrs)
	}
	return errors.Join(err, out.Close())
}

func copyLink(dir int, name string, h *object.FileHeader, st *unix.Stat_t) error {
	if err := unix.Symlinkat(h.Target, dir, name); err != nil {
		return placeError("symlink", name, err)
	}
	if err := unix.Fchownat(dir, name, int(h.UID), int(h.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return placeError("chown", name, err)
	}
	for _, x := range h.Xattrs {
		if err := unix.Lsetxattr(procPath(dir, name), x.Name, x.Value, 0); err != nil {
			return &AttributeError{x.Name, err}
		}
	}
	times := []unix.Timespec{st.Mtim, st.Mtim}
	return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// DropDamagedLane unlinks a lane file that is not what its name says: path is a Finding's. Trees keep their inodes.
func (r *Repo) DropDamagedLane(path string) error {
	if err := r.root.writable(); err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(path, lanesDir+"/")
	if !ok {
		return fmt.Errorf("drop lane %q: %w", path, unix.EINVAL)
	}
	l, err := parseLane(rest)
	if err != nil {
		return err
	}
	x := &check{r: r.root}
	if x.laneReason(l) == "" {
		return nil
	}
	if err := r.root.disk.remove(int(r.root.lanes.Fd()), rest); err != nil && err != unix.ENOENT {
		return placeError("drop lane", rest, err)
	}
	return nil
}
