package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MaxLowers is how many lower directories overlayfs takes in one mount.
const MaxLowers = 500

// A Mount says what to mount where. The zero value of a field asks for nothing.
type Mount struct {
	// Lowers are the lower directories, nearest first.
	Lowers []string
	// Upper takes what is written, Work is overlay's scratch directory on the same filesystem.
	// In a read-only mount Upper, if any, is the nearest lower, which IDMap leaves alone, and Work is not used.
	Upper, Work string
	// Target is the directory that the mount covers.
	Target string
	// ReadOnly mounts without an upper directory. "ro" in Extra does the same.
	ReadOnly bool
	// Volatile leaves out every sync of the upper filesystem.
	Volatile bool
	// UserXattr keeps overlay's own attributes in user.overlay.* instead of trusted.overlay.*: right in a user namespace.
	UserXattr bool
	// Label is the SELinux context of every file of the mount, unquoted; "" is none.
	Label string
	// IDMap, if not nil, shows the owners of the lowers through this map.
	IDMap *IDMap
	// Empty is an empty directory on the lowers' filesystem. It is used where overlay wants one more lower than
	// there are: two in a read-only mount, one in another. Without it that is an empty tmpfs, and then the mount's
	// directories and files differ in st_dev.
	Empty string
	// Extra are mount options as mount(8) has them: "nodev", "metacopy=on". One named here replaces the package's own.
	Extra []string
}

// Do makes the mount. The error names the step, the directory and what the kernel's own log said.
func (m *Mount) Do() error {
	return m.do(way{})
}

// do makes the mount, beginning with the given way.
func (m *Mount) do(first way) error {
	p, err := newPlan(m)
	if err != nil {
		return fmt.Errorf("mount overlay at %q: %w", m.Target, err)
	}
	defer p.close()
	mnt, err := p.make(first)
	if err == nil && mnt >= 0 {
		err = p.attach(mnt)
		unix.Close(mnt)
	}
	if err != nil {
		return fmt.Errorf("mount overlay at %q: %w", m.Target, p.explain(err))
	}
	return nil
}

// A plan is a checked Mount with its options sorted by how the kernel takes them.
type plan struct {
	lowers   []lower // nearest first
	upper    string  // "" in a read-only mount
	work     string
	target   string
	attrs    attributes
	params   []param
	userns   int // -1, or the user namespace whose maps the lowers get
	mapped   bool
	tmpfs    bool // a lower is an empty tmpfs of its own
	readOnly bool
	trial    bool // the mount is not to appear anywhere
}

// A lower is one lower directory; an empty path stands for an empty tmpfs.
type lower struct {
	path   string
	mapped bool
}

// newPlan checks m. The caller must close the plan.
func newPlan(m *Mount) (*plan, error) {
	o, err := parseExtra(m.Extra)
	if err != nil {
		return nil, err
	}
	p := &plan{target: m.Target, userns: -1, readOnly: m.ReadOnly || o.readOnly, attrs: o.attrs}
	if p.readOnly {
		p.attrs.set(readOnlyAttribute)
	}
	if err := p.setDirs(m); err != nil {
		return nil, err
	}
	if p.params, err = o.complete(m, p.readOnly); err != nil {
		return nil, err
	}
	if p.mapped {
		if p.userns, err = namespaces.open(m.IDMap); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// setDirs fills in the directories, and adds the empty lower where one is needed.
func (p *plan) setDirs(m *Mount) error {
	if m.Target == "" {
		return errors.New("no target")
	}
	p.mapped = m.IDMap != nil && len(m.Lowers) > 0
	need := 1
	switch {
	case p.readOnly:
		need = 2
		if m.Upper != "" {
			p.lowers = append(p.lowers, lower{path: m.Upper})
		}
	case m.Upper == "" || m.Work == "":
		return errors.New("an upper directory needs a work directory, and a mount without them must be read-only")
	default:
		p.upper, p.work = m.Upper, m.Work
	}
	for i, dir := range m.Lowers {
		if dir == "" {
			return fmt.Errorf("lower directory %d has no path", i)
		}
		p.lowers = append(p.lowers, lower{path: dir, mapped: p.mapped})
	}
	// The same empty directory twice would be overlapping layers, which overlay refuses.
	for empty := m.Empty; len(p.lowers) < need; empty = "" {
		p.lowers = append(p.lowers, lower{path: empty})
		p.tmpfs = p.tmpfs || empty == ""
	}
	if len(p.lowers) > MaxLowers {
		return fmt.Errorf("%d lower directories, and overlayfs takes %d", len(p.lowers), MaxLowers)
	}
	return nil
}

func (p *plan) close() {
	if p.userns >= 0 {
		unix.Close(p.userns)
		p.userns = -1
	}
}

// clearVolatile removes the mark that an earlier volatile mount leaves in its work directory: overlay refuses the
// next mount while it is there, and whoever asks for that mount has decided that the content is good.
func (p *plan) clearVolatile() error {
	work, err := openDir(p.work)
	if err != nil {
		return err
	}
	defer unix.Close(work)
	const mark = "work/incompat/volatile"
	if err := unix.Faccessat(work, mark, unix.F_OK, 0); errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(linkName(work), mark)); err != nil {
		return fmt.Errorf("clear %q: %w", filepath.Join(p.work, mark), err)
	}
	return nil
}

// make makes the mount in the first way that the kernel has, and returns it unattached, or -1 if it is at its target.
func (p *plan) make(first way) (int, error) {
	detached := p.mapped || p.tmpfs || p.trial
	for w := first; ; {
		w.private = w.private || (detached && w.api == apiMount)
		mnt, err := p.attempt(w)
		next, ok := w.after(err, detached)
		if !ok {
			return mnt, err
		}
		w = next
	}
}

func (p *plan) attempt(w way) (int, error) {
	if p.upper != "" {
		// Each time: a volatile mount that came to nothing leaves its mark as well.
		if err := p.clearVolatile(); err != nil {
			return -1, err
		}
	}
	switch {
	case w.private:
		return p.buildPrivate(w)
	case w.api == apiMount:
		return -1, p.mountDirect()
	}
	c := p.newClones()
	defer c.close() // not before the mount is made: the kernel takes no lower of a mount that is gone
	return p.build(w, func(f func(dir int, l lower) error) error { return p.eachLower(c, f) })
}

func (p *plan) attach(mnt int) error {
	target, err := openPath(p.target)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := unix.MoveMount(mnt, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return &stepError{step: stepAttach, what: "attach the mount", err: err}
	}
	return nil
}
