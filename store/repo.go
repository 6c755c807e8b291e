package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Options are what is fixed when a repository is made.
type Options struct {
	Label string // store label, without the final NUL; "" means none
}

// A Repo is an open repository. Its methods may be called from several goroutines.
type Repo struct {
	*Objects
	*Names
	root *root
}

// Init makes a repository at path, or opens the one that is there. A label that differs from the repository's is an
// error. It is safe to call it in several processes at once, and finishes what a crash left of an earlier call.
func Init(path string, o Options) (*Repo, error) {
	if err := checkLabel(o.Label); err != nil {
		return nil, err
	}
	if err := initialize(kernel{}, path, o); err != nil {
		return nil, fmt.Errorf("make repository %s: %w", path, err)
	}
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	if r.root.label != o.Label {
		r.Close()
		return nil, fmt.Errorf("the store label of %s is %q and not %q: %w", path, r.root.label, o.Label, ErrUnsupported)
	}
	return r, nil
}

// initialize makes what is missing of a repository. The directory objects comes last: libostree takes it as the sign
// that there is a repository, and so do we.
func initialize(d disk, path string, o Options) error {
	fresh := false
	if _, err := os.Lstat(path + "/objects"); errors.Is(err, fs.ErrNotExist) {
		fresh = true
	} else if err != nil {
		return err
	}
	if _, err := os.Lstat(path + "/" + labelFile); !fresh && err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if fresh {
		if err := prepare(d, dir, o.Label); err != nil {
			return err
		}
	}
	at := &root{path: path, dir: dir, disk: d}
	for _, p := range []string{
		lanesDir, stagingDir, trashDir, headsDir, "refs/remotes", "refs/mirrors", "tmp", "state",
	} {
		if err := at.makeDirs(p + "/"); err != nil {
			return err
		}
	}
	if err := writeNew(d, int(dir.Fd()), labelFile, labelConfig(o.Label)); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	if err := writeNew(d, int(dir.Fd()), "config", repoConfig); err != nil {
		return err
	}
	return at.makeDirs("objects/")
}

// prepare closes a new repository's directory to others and sees that hardlinks and the label work. A default access
// control list, which objects would inherit and ostree would hash, is dropped.
func prepare(d disk, dir *os.File, label string) error {
	if err := dir.Chmod(0o700); err != nil {
		return err
	}
	fd := int(dir.Fd())
	err := unix.Fremovexattr(fd, aclDefault)
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return fmt.Errorf("remove default access control list: %w", err)
	}
	name := ".probe-" + randomName()
	f, err := d.create(fd, name, 0o600)
	if err != nil {
		return err
	}
	defer d.remove(fd, name)
	if label != "" {
		err = unix.Fsetxattr(f, labelName, append([]byte(label), 0), 0)
	}
	err = errors.Join(err, unix.Close(f))
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("only root of the host may set the store label %q, and not from within a user namespace (%w): %w", label, err, ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("the filesystem refuses the store label %q (%w): %w", label, err, ErrUnsupported)
	}
	switch err := d.link(fd, name, fd, name+"l"); {
	case err == unix.ENOENT && lstat(fd, "objects", new(unix.Stat_t)) == nil:
		return nil // another process was faster, and its Recover took this for a leftover
	case err != nil:
		return fmt.Errorf("the filesystem cannot make hardlinks (%w): %w", err, ErrUnsupported)
	}
	if err := d.remove(fd, name+"l"); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// writeNew writes a small file durably, unless there is one of that name.
func writeNew(d disk, dir int, name, text string) error {
	var st unix.Stat_t
	if err := lstat(dir, name, &st); err == nil {
		return nil
	}
	next := name + "." + randomName()
	fd, err := d.create(dir, next, 0o644)
	if err != nil {
		return fmt.Errorf("create %s: %w", next, err)
	}
	f := os.NewFile(uintptr(fd), next)
	_, err = f.WriteString(text)
	err = errors.Join(err, d.sync(fd), f.Close())
	if err == nil {
		err = d.link(dir, next, dir, name)
		if err == unix.EEXIST || err == unix.ENOENT && lstat(dir, name, &st) == nil {
			err = nil // another process was faster
		}
	}
	if gone := d.remove(dir, next); gone != unix.ENOENT {
		err = errors.Join(err, gone)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Open opens an existing repository; for reading only where it cannot be changed (a read-only filesystem, no
// permission) or was never prepared by Init.
func Open(path string) (*Repo, error) {
	text, err := os.ReadFile(path + "/config")
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	if err := checkRepoConfig(string(text)); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", path, err)
	}
	label, readOnly := "", false
	switch text, err = os.ReadFile(path + "/" + labelFile); {
	case errors.Is(err, fs.ErrNotExist):
		readOnly = true
	case err != nil:
		return nil, fmt.Errorf("open repository: %w", err)
	default:
		if label, err = parseLabelConfig(string(text)); err != nil {
			return nil, fmt.Errorf("open repository %s: %w", path, err)
		}
	}
	switch err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err {
	case nil:
	case unix.EROFS, unix.EACCES, unix.EPERM:
		readOnly = true
	default:
		return nil, &os.PathError{Op: "access", Path: path, Err: err}
	}
	at, err := openRoot(path, readOnly)
	if err != nil {
		return nil, err
	}
	at.label = label
	return &Repo{Objects: &Objects{at}, Names: &Names{at}, root: at}, nil
}

// Close releases the repository. Stages and trash of it must be closed before.
func (r *Repo) Close() error { return r.root.close() }

// Path returns the path that the repository was opened with.
func (r *Repo) Path() string { return r.root.path }

// Label returns the store label, "" if there is none.
func (r *Repo) Label() string { return r.root.label }

// ReadOnly tells if the repository was opened for reading only.
func (r *Repo) ReadOnly() bool { return r.root.readOnly }

// Features probes the filesystem at the first call.
func (r *Repo) Features() (Features, error) { return r.root.features() }

// Sync makes durable what was done before: one syncfs.
func (r *Repo) Sync() error {
	if r.root.readOnly {
		return nil
	}
	return r.root.syncfs(r.root.fd())
}
