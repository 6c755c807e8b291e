package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountDirect makes the mount with mount(2) at its target.
func (p *plan) mountDirect() error {
	target, err := openPath(p.target)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	paths := make([]string, len(p.lowers))
	for i, l := range p.lowers {
		paths[i] = l.path
	}
	if data, ok := p.text(paths, p.upper, p.work); ok {
		return p.mountText(linkName(target), data)
	}
	return onOwnThread(unix.CLONE_FS, func() error {
		s := &scratch{}
		defer s.close()
		for _, path := range paths {
			dir, err := openDir(path)
			if err != nil {
				return err
			}
			s.lowers = append(s.lowers, dir)
		}
		return p.mountNumbers(s.lowers, linkName(target))
	})
}

// mountNumbers makes the mount with descriptor numbers for names, which are short and need no escaping: they are
// relative to /proc/self/fd, where it moves the calling thread.
func (p *plan) mountNumbers(lowers []int, target string) error {
	names := make([]string, len(lowers))
	for i, fd := range lowers {
		names[i] = strconv.Itoa(fd)
	}
	var upper, work string
	for _, o := range []struct {
		path string
		name *string
	}{{p.upper, &upper}, {p.work, &work}} {
		if p.upper == "" {
			break
		}
		dir, err := openDir(o.path)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		*o.name = strconv.Itoa(dir)
	}
	data, ok := p.text(names, upper, work)
	if !ok {
		return fmt.Errorf("mount options of %d bytes do not fit in a page", len(data))
	}
	if err := unix.Chdir(filepath.Dir(linkName(0))); err != nil {
		return err
	}
	return p.mountText(target, data)
}

func (p *plan) mountText(target, data string) error {
	flags := p.attrs.flags
	if p.readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("overlay", target, "overlay", flags, data); err != nil {
		_, options, _ := strings.Cut(data, ",")
		return &stepError{step: stepCreate, what: fmt.Sprintf("mount(2) of %d lower directories with %s", len(p.lowers), options), err: err}
	}
	return nil
}

// text is the options as mount(2) takes them. It is not ok if a name would need escaping, or if it does not fit.
func (p *plan) text(lowers []string, upper, work string) (string, bool) {
	var b strings.Builder
	b.WriteString("lowerdir=" + strings.Join(lowers, ":"))
	if p.upper != "" {
		b.WriteString(",upperdir=" + upper + ",workdir=" + work)
	}
	for _, o := range p.params {
		b.WriteString("," + o.text())
	}
	ok := b.Len() < os.Getpagesize()
	for _, name := range append(lowers, upper, work) {
		ok = ok && isPlain(name)
	}
	return b.String(), ok
}

// isPlain reports whether path means itself as a mount option, without escaping.
func isPlain(path string) bool { return !strings.ContainsAny(path, `,:\"`) }
