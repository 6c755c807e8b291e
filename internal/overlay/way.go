package overlay

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An api is how the kernel is told the layers.
type api uint8

const (
	apiFD    api = iota // by file descriptor: Linux 6.13
	apiLink             // `lowerdir+` by the short name of a descriptor under /proc: Linux 6.7
	apiMount            // mount(2)
)

// A way is one way to make a mount. Which one a kernel has is found by trying: the calls that fail cost microseconds.
type way struct {
	api api
	// private builds in a mount namespace of its own, where the detached lowers can be attached.
	// Kernels before 6.15 have no overlay over detached ones.
	private bool
}

// after returns the way to try next when w failed with err, if that error may be the kernel's age.
func (w way) after(err error, detached bool) (way, bool) {
	var s *stepError
	if !errors.As(err, &s) {
		return w, false
	}
	switch {
	case s.step == stepOpen && w.api == apiFD:
		// No fsopen (Linux < 5.2), or a seccomp filter without it.
		return way{api: apiMount}, true
	case w.api != apiMount && s.legacy():
		return way{api: apiMount}, true
	case w.api == apiFD && s.step == stepFirstLower && s.invalid():
		return way{api: apiLink, private: w.private}, true
	case w.api == apiLink && (s.step == stepFirstLower || s.step == stepCreate) && s.invalid() && (w.private || !detached):
		return way{api: apiMount}, true
	case w.api != apiMount && s.step == stepCreate && s.invalid() && detached && !w.private:
		return way{api: w.api, private: true}, true
	}
	return w, false
}

// A step is where in a mount an error arose.
type step uint8

const (
	stepOpen step = iota
	stepOption
	stepFirstLower
	stepLayer
	stepCreate
	stepAttach
)

// A stepError is what the kernel said to one step.
type stepError struct {
	step step
	what string
	err  error
	log  []string // the kernel's own words, if it had any
	hint string
}

func (e *stepError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.what, e.err)
	if len(e.log) > 0 {
		fmt.Fprintf(&b, " (kernel: %s)", strings.Join(e.log, "; "))
	}
	if e.hint != "" {
		fmt.Fprintf(&b, " (%s)", e.hint)
	}
	return b.String()
}

func (e *stepError) Unwrap() error { return e.err }

// invalid reports whether the kernel took something for wrong, be it because it is too old to know it.
func (e *stepError) invalid() bool { return errors.Is(e.err, unix.EINVAL) }

// legacy reports whether the kernel only collects the options for overlayfs, as Linux before 6.5 does: it has no
// `lowerdir+`, takes no descriptors, and has room for a page.
func (e *stepError) legacy() bool {
	return errors.Is(e.err, unix.EOPNOTSUPP) ||
		slices.ContainsFunc(e.log, func(text string) bool { return strings.HasPrefix(text, "VFS: Legacy:") })
}

// explain adds what can be seen from here to an error about which the kernel says nothing but its number.
func (p *plan) explain(err error) error {
	var s *stepError
	if !errors.As(err, &s) || s.step != stepCreate || len(s.log) > 0 {
		return err
	}
	if err := p.openAll(); err != nil {
		return err
	}
	switch {
	case errors.Is(s.err, unix.EBUSY):
		s.hint = "upper or work directory is in use by another overlay mount"
	case errors.Is(s.err, unix.ELOOP):
		s.hint = "two of the layers overlap"
	case errors.Is(s.err, unix.EROFS):
		s.hint = "upper filesystem is read-only"
	case errors.Is(s.err, unix.EPERM) && !p.userXattr():
		s.hint = "in a user namespace overlay needs userxattr"
	case errors.Is(s.err, unix.EINVAL):
		s.hint = p.explainInvalid()
	}
	return err
}

// openAll says which directory cannot be opened: mount(2) does not.
func (p *plan) openAll() error {
	all := p.lowers
	if p.upper != "" {
		all = append([]lower{{path: p.upper}, {path: p.work}}, all...)
	}
	for _, l := range all {
		if l.path == "" {
			continue
		}
		dir, err := openDir(l.path)
		if err != nil {
			return err
		}
		unix.Close(dir)
	}
	return nil
}

func (p *plan) userXattr() bool {
	return slices.ContainsFunc(p.params, func(o param) bool { return o.key == "userxattr" })
}

func (p *plan) explainInvalid() string {
	if p.upper != "" {
		var upper, work unix.Stat_t
		if unix.Stat(p.upper, &upper) == nil && unix.Stat(p.work, &work) == nil && upper.Dev != work.Dev {
			return fmt.Sprintf("upper directory %q and work directory %q are on different filesystems", p.upper, p.work)
		}
		if within(p.upper, p.work) || within(p.work, p.upper) {
			return "upper and work directory lie one in the other"
		}
	}
	for _, dir := range append([]lower{{path: p.upper}}, p.lowers...) {
		var fs unix.Statfs_t
		if dir.path != "" && unix.Statfs(dir.path, &fs) == nil && fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
			return fmt.Sprintf("%q is on an overlay itself", dir.path)
		}
	}
	return ""
}

// within reports whether path is dir or under it, by name.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/')
}
