package index

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A Disk makes the calls that change the index's directories, as the repository's own disk does: tests trace it and cut it
// short. Errors are bare errnos.
type Disk interface {
	Create(dir int, name string, perm uint32) (fd int, err error) // a new file, open for reading and writing
	Mkdir(dir int, name string) error
	Link(fromDir int, from string, toDir int, to string) error // fails if to exists
	Rename(fromDir int, from string, toDir int, to string) error
	Remove(dir int, name string) error
	Sync(fd int) error
}

// An Index is the index of one repository. Its methods are safe for use by one goroutine; any number of processes may
// have the same index open under the locks that the package comment names.
type Index struct {
	disk Disk
	dir  *os.File
	// manifest is what the manifest file said when it was last read.
	manifest manifest
}

var folders = []string{"new", "lists", "dropped", "runs", "refs"}

// Open opens the index in directory path, making it where there is none.
func Open(path string, d Disk) (*Index, error) {
	if err := d.Mkdir(unix.AT_FDCWD, path); err != nil && err != unix.EEXIST {
		return nil, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	x, err := Look(path)
	if err != nil {
		return nil, err
	}
	x.disk = d
	for _, name := range folders {
		if err := d.Mkdir(x.fd(), name); err != nil && err != unix.EEXIST {
			x.Close()
			return nil, &os.PathError{Op: "mkdir", Path: path + "/" + name, Err: err}
		}
	}
	return x, nil
}

// Look opens the index in directory path for reading only.
func Look(path string) (*Index, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Index{dir: dir}, nil
}

// Close releases the index.
func (x *Index) Close() error { return x.dir.Close() }

// Deleted tells if the index's directory is gone. It does not go while a lock is held.
func (x *Index) Deleted() bool {
	var st unix.Stat_t
	return unix.Fstat(x.fd(), &st) != nil || st.Nlink == 0
}

func (x *Index) fd() int { return int(x.dir.Fd()) }

// Add counts commit. The list, made by AppendList, is the file name in directory from; it must be durable, and gets
// a name in the index too if that has none of the commit yet. Adding what is there already changes nothing.
func (x *Index) Add(commit object.Checksum, from *os.File, name string) error {
	if known, err := x.Known(commit); known || err != nil {
		return err
	}
	list := "new/" + commit.String()
	if err := x.disk.Link(int(from.Fd()), name, x.fd(), list); err != nil && err != unix.EEXIST {
		return &os.LinkError{Op: "link", Old: name, New: list, Err: err}
	}
	return nil
}

// A Stamp tells whether the index counts something else than before. The zero Stamp is before everything.
type Stamp [3]unix.Timespec

// tick is longer than any filesystem's clock takes from one time to the next.
const tick = 20 * time.Millisecond

// Stamp returns the index's stamp, taken before it is asked. It is zero if the index was changed within the last tick:
// another change might then have the same stamp.
func (x *Index) Stamp() (Stamp, error) {
	var stamp Stamp
	now := time.Now()
	for i, name := range []string{"new", "dropped", "manifest"} {
		var st unix.Stat_t
		err := unix.Fstatat(x.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return stamp, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if now.Sub(time.Unix(st.Ctim.Unix())) < tick {
			return Stamp{}, nil
		}
		stamp[i] = st.Ctim
	}
	return stamp, nil
}

// Known says whether the index counts the commit.
func (x *Index) Known(commit object.Checksum) (bool, error) {
	_, err := x.listOf(commit)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Keys returns the sorted keys of a commit's objects. It fails with fs.ErrNotExist for a commit that is not counted.
func (x *Index) Keys(commit object.Checksum) ([]Key, error) {
	path, err := x.listOf(commit)
	if err != nil {
		return nil, err
	}
	list, err := open(x.dir, path, listMagic)
	if err != nil {
		return nil, err
	}
	defer list.close()
	keys := make([]Key, list.n)
	for i := range keys {
		keys[i] = list.key(i)
	}
	return keys, nil
}

// Forget stops counting commit and its refs. Forgetting an unknown commit does nothing.
func (x *Index) Forget(commit object.Checksum) error {
	if err := x.Settle(); err != nil {
		return err
	}
	name := commit.String()
	if err := x.remove(refsFolder + name); err != nil {
		return err
	}
	if err := x.remove("new/" + name); err != nil {
		return err
	}
	err := x.disk.Rename(x.fd(), "lists/"+name, x.fd(), "dropped/"+name)
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rename", Path: "lists/" + name, Err: err}
	}
	return nil
}

// Count returns for each of the sorted keys how many counted commits reach the object.
func (x *Index) Count(keys []Key) ([]int32, error) {
	sums := make([]int32, len(keys))
	if err := x.read(); err != nil {
		return nil, err
	}
	add := func(path, magic string, sign int32) error {
		k, err := open(x.dir, path, magic)
		if err != nil {
			return err
		}
		defer k.close()
		k.addTo(sums, keys, sign)
		return nil
	}
	for _, run := range x.manifest.Runs {
		if err := add("runs/"+run.Name, runMagic, +1); err != nil {
			return nil, err
		}
	}
	for _, waiting := range x.waiting() {
		names, err := x.names(waiting.folder)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if slices.Contains(waiting.taken, name) {
				continue
			}
			if err := add(waiting.folder+"/"+name, listMagic, waiting.sign); err != nil {
				return nil, err
			}
		}
	}
	return sums, nil
}

// Commits returns the commits that the index counts.
func (x *Index) Commits() ([]object.Checksum, error) {
	var commits []object.Checksum
	for _, folder := range []string{"new", "lists"} {
		names, err := x.names(folder)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			c, err := object.ParseChecksum(name)
			if err != nil {
				return nil, damaged(folder+"/"+name, "not named by a commit")
			}
			commits = append(commits, c)
		}
	}
	return commits, nil
}

// listOf returns where the list of a commit is, or fs.ErrNotExist.
func (x *Index) listOf(commit object.Checksum) (string, error) {
	var st unix.Stat_t
	for _, folder := range []string{"new/", "lists/"} {
		path := folder + commit.String()
		err := unix.Fstatat(x.fd(), path, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return path, nil
		}
		if err != unix.ENOENT {
			return "", &os.PathError{Op: "stat", Path: path, Err: err}
		}
	}
	return "", &os.PathError{Op: "find list of", Path: commit.String(), Err: fs.ErrNotExist}
}

// names lists a folder, unsorted.
func (x *Index) names(folder string) ([]string, error) {
	fd, err := unix.Openat(x.fd(), folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: folder, Err: err}
	}
	d := os.NewFile(uintptr(fd), folder)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool { return name == SealName }), err
}

func (x *Index) remove(name string) error {
	if err := x.disk.Remove(x.fd(), name); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	return nil
}
