package index

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A manifest says which runs count. Moved and Applied are the commits that its last compaction took in and struck out:
// a crash after the manifest's rename leaves them in new/ and dropped/, and whoever comes next moves them on.
type manifest struct {
	Sequence int      `json:"sequence"`
	Runs     []run    `json:"runs"`
	Moved    []string `json:"moved,omitempty"`
	Applied  []string `json:"applied,omitempty"`
}

type run struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"`
}

// manifestName is the manifest's file; manifestNext begins the names of those that wait to take its place.
const (
	manifestName = "manifest"
	manifestNext = "manifest."
)

// pending is how many lists wait for a run before a compaction is worth its while, and ratio how much larger than what
// is merged an older run must be to stay apart. Together they keep a look-up to some dozens of files and make a key's
// way through the runs logarithmic.
const (
	pending = 64
	ratio   = 4
)

// read reads the manifest.
func (x *Index) read() error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", x.fd(), manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		x.manifest = manifest{}
		if lists, err := x.names("lists"); err != nil || len(lists) > 0 {
			return errors.Join(err, damaged(manifestName, "missing, but there are lists that a run counts"))
		}
		return nil
	}
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return damaged(manifestName, err.Error())
	}
	x.manifest = m
	return nil
}

// waiting says which lists are in no run, and how they count. A list that a run took in already, but that a crash left
// where it was, is taken: to count it twice would be wrong, and with a dropped list even dangerous.
func (x *Index) waiting() []struct {
	folder string
	sign   int32
	taken  []string
} {
	return []struct {
		folder string
		sign   int32
		taken  []string
	}{{"new", +1, x.manifest.Moved}, {"dropped", -1, x.manifest.Applied}}
}

// finish moves the lists that the manifest's compaction took in. It is repeated until the manifest forgets them.
func (x *Index) finish() error {
	for _, name := range x.manifest.Moved {
		err := x.disk.Rename(x.fd(), "new/"+name, x.fd(), "lists/"+name)
		if err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "rename", Path: "new/" + name, Err: err}
		}
	}
	for _, name := range x.manifest.Applied {
		if err := x.remove("dropped/" + name); err != nil {
			return err
		}
	}
	return nil
}

// A Compaction is a run that waits to be put in place.
type Compaction struct {
	x    *Index
	run  string // its name below runs/
	next manifest

	begun, done string // the files of the two manifests that put it in place, one after the other
}

// Compact merges what has gathered into a new run, if that is worth its while or force is set; otherwise it returns nil.
// It changes nothing that counts and needs no lock of the repository, but only one compaction may run at a time: the second
// to commit finds another manifest and does nothing. Commit puts the run in place, and has nothing left to write.
func (x *Index) Compact(force bool) (*Compaction, error) {
	if err := x.read(); err != nil {
		return nil, err
	}
	if len(x.manifest.Moved)+len(x.manifest.Applied) > 0 {
		return nil, nil // Settle comes first
	}
	added, err := x.names("new")
	if err != nil {
		return nil, err
	}
	dropped, err := x.names("dropped")
	if err != nil {
		return nil, err
	}
	if n := len(added) + len(dropped); n == 0 || n < pending && !force {
		return nil, nil
	}
	c := &Compaction{x: x, next: manifest{Sequence: x.manifest.Sequence + 1, Moved: added, Applied: dropped}}
	err = c.write()
	if err == nil {
		err = c.manifests()
	}
	if err != nil {
		return nil, errors.Join(err, c.discard())
	}
	return c, nil
}

// write merges lists and the runs that are not much larger than they are.
func (c *Compaction) write() error {
	var inputs []*source
	defer func() {
		for _, in := range inputs {
			in.close()
		}
	}()
	take := func(path, magic string, sign int32) (int, error) {
		k, err := open(c.x.dir, path, magic)
		if err != nil {
			return 0, err
		}
		inputs = append(inputs, &source{keyed: k, sign: sign})
		return k.n, nil
	}
	total := 0
	for i, name := range slices.Concat(c.next.Moved, c.next.Applied) {
		folder, sign := "new/", int32(+1)
		if i >= len(c.next.Moved) {
			folder, sign = "dropped/", -1
		}
		n, err := take(folder+name, listMagic, sign)
		if err != nil {
			return err
		}
		total += n
	}
	runs := slices.Clone(c.x.manifest.Runs)
	slices.SortFunc(runs, func(a, b run) int { return a.Entries - b.Entries })
	for len(runs) > 0 && runs[0].Entries < ratio*total {
		n, err := take("runs/"+runs[0].Name, runMagic, +1)
		if err != nil {
			return err
		}
		total += n
		runs = runs[1:]
	}
	// Two processes may compact at once, and only one commits: they must not write to one file.
	c.run = fmt.Sprintf("%d-%s", c.next.Sequence, rand.Text())
	f, err := c.x.create("runs/" + c.run)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := writeRun(f, inputs)
	if err == nil {
		err = c.x.sync(f)
	}
	if err != nil {
		return err
	}
	c.next.Runs = append(runs, run{c.run, n})
	return f.Close()
}

// manifests makes the manifests that put the run in place.
func (c *Compaction) manifests() (err error) {
	if c.begun, err = c.x.prepare(c.next); err == nil {
		c.done, err = c.x.prepare(c.next.settled())
	}
	return err
}

// settled is the manifest when what it took in has been moved on.
func (m manifest) settled() manifest {
	m.Moved, m.Applied = nil, nil
	return m
}

// discard removes what a compaction wrote.
func (c *Compaction) discard() error {
	var errs []error
	for _, name := range []string{"runs/" + c.run, c.begun, c.done} {
		if name != "" && name != "runs/" {
			errs = append(errs, c.x.remove(name))
		}
	}
	return errors.Join(errs...)
}

// Commit puts the compaction in place, unless another one was faster. The caller holds the exclusive lock; all that was to
// be written is durable already, so this takes a few renames.
func (c *Compaction) Commit() error {
	x := c.x
	if err := x.read(); err != nil {
		return errors.Join(err, c.discard())
	}
	if x.manifest.Sequence+1 != c.next.Sequence {
		return c.discard()
	}
	// A commit that was forgotten since has left new/ for good, and this run would count it for ever: give up, the next
	// compaction is soon enough.
	for _, name := range c.next.Moved {
		var st unix.Stat_t
		if err := unix.Fstatat(x.fd(), "new/"+name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return c.discard()
		}
	}
	if err := x.place(c.begun); err != nil {
		return err
	}
	x.manifest = c.next
	if err := x.finish(); err != nil {
		return err
	}
	if err := x.sweep(c.done); err != nil {
		return err
	}
	// The manifest must not name what was moved any longer, for a name may come back.
	x.manifest = c.next.settled()
	return x.place(c.done)
}

// sweep removes the runs that do not count, and all manifests that wait but one. A compaction that others have under way
// loses its files by that, and would not be put in place anyhow; none begins as long as the manifest names what it moves.
func (x *Index) sweep(done string) error {
	names, err := x.names("runs")
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.ContainsFunc(x.manifest.Runs, func(r run) bool { return r.Name == name }) {
			continue
		}
		if err := x.remove("runs/" + name); err != nil {
			return err
		}
	}
	if names, err = x.names("."); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, manifestNext) || name == done {
			continue
		}
		if err := x.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// Settle finishes a compaction that a crash interrupted. The caller holds the exclusive lock.
func (x *Index) Settle() error {
	if err := x.read(); err != nil || len(x.manifest.Moved)+len(x.manifest.Applied) == 0 {
		return err
	}
	if err := x.finish(); err != nil {
		return err
	}
	done, err := x.prepare(x.manifest.settled())
	if err != nil {
		return err
	}
	x.manifest = x.manifest.settled()
	return x.place(done)
}

// prepare makes the file of a manifest, durable and without the name that counts.
func (x *Index) prepare(m manifest) (name string, err error) {
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	name = manifestNext + rand.Text()
	f, err := x.create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err = f.Write(b); err == nil {
		err = x.sync(f)
	}
	if err != nil {
		return "", errors.Join(err, x.remove(name))
	}
	return name, nil
}

// place makes a prepared manifest the one that counts.
func (x *Index) place(name string) error {
	if err := x.disk.Rename(x.fd(), name, x.fd(), manifestName); err != nil {
		return &os.PathError{Op: "rename", Path: name, Err: err}
	}
	return nil
}

func (x *Index) create(name string) (*os.File, error) {
	fd, err := x.disk.Create(x.fd(), name, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (x *Index) sync(f *os.File) error {
	if err := x.disk.Sync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}
