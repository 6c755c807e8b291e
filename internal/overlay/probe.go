package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Features is what the kernel's overlayfs can do on one filesystem for this process.
type Features struct {
	LowerFD      bool // lower directories one by one through file descriptors (`lowerdir+`)
	TrustedXattr bool // trusted.* attributes: without them a mount needs UserXattr
	Upper        bool // the filesystem can hold an upper directory
	IDMap        bool // lowers with an id map
	UserXattr    bool // `userxattr`, and user.overlay.* attributes on the filesystem
	Volatile     bool // `volatile`
	EscapeXattr  bool // an attribute overlay.overlay.X of a lower is seen as overlay.X
	DataOnly     bool // data-only lowers
}

// Probe tries every feature in dir, as a Prober does one at a time. It fails if dir is no directory.
func Probe(dir string) (Features, error) {
	p, err := NewProber(dir)
	if err != nil {
		return Features{}, err
	}
	return p.Features(), nil
}

// A Prober finds out what overlayfs can do with the directories in one. A feature is tried when it is first asked for,
// by making a mount that appears nowhere, over directories that are removed again. The methods return nil if the
// feature is there, else why it is not. They may be called concurrently.
type Prober struct {
	lowerFD, trusted, upper, idMap, userXattr, volatile, escape, dataOnly func() error
}

// NewProber returns a Prober for the directories in dir, which must exist.
func NewProber(dir string) (*Prober, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("probe overlay: %w", err)
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("probe overlay: %w", &os.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR})
	}
	p := &Prober{}
	once := func(name string, try func(t *trial) error) func() error {
		return sync.OnceValue(func() error {
			if err := inTrial(dir, try); err != nil {
				return fmt.Errorf("probe overlay for %s in %q: %w", name, dir, err)
			}
			return nil
		})
	}
	p.lowerFD = once("lowers by descriptor", (*trial).lowerFD)
	p.trusted = once("trusted attributes", func(t *trial) error { return t.setAttribute("trusted.") })
	p.upper = once("an upper directory", func(t *trial) error { return t.tryUpper(p.TrustedXattr() != nil, false) })
	p.idMap = once("mapped lowers", func(t *trial) error { return t.idMap(p.TrustedXattr() != nil) })
	p.userXattr = once("userxattr", func(t *trial) error { return errors.Join(t.setAttribute("user."), t.tryUpper(true, false)) })
	p.volatile = once("volatile", func(t *trial) error { return t.tryUpper(p.TrustedXattr() != nil, true) })
	p.escape = once("escaped attributes", func(t *trial) error { return t.escape(p.TrustedXattr() != nil) })
	p.dataOnly = once("data-only lowers", func(t *trial) error { return t.dataOnly(p.TrustedXattr() != nil) })
	return p, nil
}

// Features tries everything that has not been tried yet.
func (p *Prober) Features() Features {
	return Features{
		LowerFD:      p.LowerFD() == nil,
		TrustedXattr: p.TrustedXattr() == nil,
		Upper:        p.Upper() == nil,
		IDMap:        p.IDMap() == nil,
		UserXattr:    p.UserXattr() == nil,
		Volatile:     p.Volatile() == nil,
		EscapeXattr:  p.EscapeXattr() == nil,
		DataOnly:     p.DataOnly() == nil,
	}
}

// LowerFD tries lower directories given by file descriptor.
func (p *Prober) LowerFD() error { return p.lowerFD() }

// TrustedXattr tries attributes in trusted.*; where there are none, mounts need userxattr.
func (p *Prober) TrustedXattr() error { return p.trusted() }

// Upper tries an upper directory.
func (p *Prober) Upper() error { return p.upper() }

// IDMap tries lowers with an id map.
func (p *Prober) IDMap() error { return p.idMap() }

// UserXattr tries overlay's own attributes in user.*.
func (p *Prober) UserXattr() error { return p.userXattr() }

// Volatile tries mounts without sync.
func (p *Prober) Volatile() error { return p.volatile() }

// EscapeXattr tries whether overlay shows an attribute of a lower with the escaped name overlay.overlay.X as
// overlay.X, in trusted.*, or in user.* where trusted.* cannot be used.
func (p *Prober) EscapeXattr() error { return p.escape() }

// DataOnly tries lowers that only give data to files of other lowers.
func (p *Prober) DataOnly() error { return p.dataOnly() }

// A trial is a directory to try one feature in.
type trial struct{ dir string }

func inTrial(dir string, try func(t *trial) error) error {
	temp, err := os.MkdirTemp(dir, ".overlay-probe-")
	if err != nil {
		return err
	}
	t := &trial{temp}
	for _, name := range []string{"lower", "upper", "work", "target"} {
		err = errors.Join(err, os.Mkdir(t.path(name), 0o700))
	}
	if err == nil {
		err = try(t)
	}
	return errors.Join(err, os.RemoveAll(temp))
}

func (t *trial) path(name string) string { return filepath.Join(t.dir, name) }

func (t *trial) mount(userXattr bool) *Mount {
	return &Mount{
		Lowers: []string{t.path("lower")}, Upper: t.path("upper"), Work: t.path("work"),
		Target: t.path("target"), UserXattr: userXattr,
	}
}

// make makes m, calls f with it, and drops it.
func (t *trial) make(m *Mount, f func(mnt int) error) error {
	p, err := newPlan(m)
	if err != nil {
		return err
	}
	defer p.close()
	p.trial = true
	mnt, err := p.make(way{})
	if err != nil {
		return p.explain(err)
	}
	defer unix.Close(mnt)
	if f == nil {
		return nil
	}
	return f(mnt)
}

func (t *trial) lowerFD() error {
	c, err := openContext("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	dir, err := openDir(t.path("lower"))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.FsconfigSetFd(c.fd, "lowerdir+", dir); err != nil {
		return c.fail(stepFirstLower, "add a lower directory", err)
	}
	return nil
}

func (t *trial) setAttribute(prefix string) error {
	name := prefix + "overlay.probe"
	if err := unix.Lsetxattr(t.path("upper"), name, []byte("y"), 0); err != nil {
		return fmt.Errorf("set attribute %s: %w", name, err)
	}
	return nil
}

func (t *trial) tryUpper(userXattr, volatile bool) error {
	m := t.mount(userXattr)
	m.Volatile = volatile
	return t.make(m, nil)
}

func (t *trial) idMap(userXattr bool) error {
	m := t.mount(userXattr)
	identity := []Range{{Size: 1}}
	m.IDMap = &IDMap{UIDs: identity, GIDs: identity}
	return t.make(m, nil)
}

func (t *trial) escape(userXattr bool) error {
	prefix := "trusted."
	if userXattr {
		prefix = "user."
	}
	file := filepath.Join(t.path("lower"), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Lsetxattr(file, prefix+"overlay.overlay.probe", []byte("y"), 0); err != nil {
		return fmt.Errorf("set an escaped attribute: %w", err)
	}
	return t.make(t.mount(userXattr), func(mnt int) error {
		fd, err := unix.Openat(mnt, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a file of the mount: %w", err)
		}
		defer unix.Close(fd)
		if _, err := unix.Fgetxattr(fd, prefix+"overlay.probe", make([]byte, 8)); err != nil {
			return fmt.Errorf("read an escaped attribute: %w", err)
		}
		return nil
	})
}

func (t *trial) dataOnly(userXattr bool) error {
	c, err := openContext("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	options := []param{{key: "metacopy", value: "on"}, {key: "redirect_dir", value: "on"}}
	if userXattr {
		options = []param{{key: "userxattr", flag: true}}
	}
	for _, o := range options {
		if err := c.set(o); err != nil {
			return err
		}
	}
	for _, o := range []param{{key: "lowerdir+", value: "lower"}, {key: "datadir+", value: "upper"}} {
		dir, err := openDir(t.path(o.value))
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if err := c.setDir(apiLink, o.key, dir, ""); err != nil {
			return c.fail(stepLayer, "set "+o.key, err)
		}
	}
	mnt, err := c.create(0)
	if err != nil {
		return err
	}
	return unix.Close(mnt)
}
