package store

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A settlement is what became of a mode and of the attributes that the kernel interprets.
type settlement struct {
	mode   uint32
	xattrs []object.Xattr
}

// maxSettled bounds how many settlements a stage remembers.
const maxSettled = 4096

// interpreted tells if the kernel may give an attribute back in another form than it was set: access control lists that
// say no more than the mode vanish into it, capabilities have several versions, and xfs lists an access control list a
// second time as trusted.SGI_ACL_FILE or _DEFAULT, which ostree hashes like any other attribute.
func interpreted(name string) bool {
	return strings.HasPrefix(name, "system.") || strings.HasPrefix(name, "trusted.SGI_ACL_") ||
		strings.HasPrefix(name, "security.") && name != labelName
}

// Settle returns mode and attributes as the filesystem will give them back: access control lists change permission bits
// and may vanish into them. Mode has S_IFMT; only regular files and directories change. What the filesystem refuses is an
// *AttributeError.
func (s *Stage) Settle(mode uint32, xattrs []object.Xattr) (uint32, []object.Xattr, error) {
	kind := mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR ||
		!slices.ContainsFunc(xattrs, func(x object.Xattr) bool { return interpreted(x.Name) }) {
		return mode, xattrs, nil
	}
	var rest, ask []object.Xattr
	key := fmt.Appendf(nil, "%o", mode)
	for _, x := range xattrs {
		if !interpreted(x.Name) || len(x.Value) == 0 && strings.HasPrefix(x.Name, "security.") {
			rest = append(rest, x) // what has no value stays as it is, and is in no header
			continue
		}
		ask = append(ask, x)
		key = fmt.Appendf(key, "\x00%s\x00%d\x00%s", x.Name, len(x.Value), x.Value)
	}
	s.mu.Lock()
	got, ok := s.settled[string(key)]
	s.mu.Unlock()
	if !ok {
		var err error
		if got, err = s.trySettle(mode, ask); err != nil {
			return mode, xattrs, err
		}
		s.mu.Lock()
		if len(s.settled) < maxSettled {
			s.settled[string(key)] = got
		}
		s.mu.Unlock()
	}
	all := slices.Concat(rest, got.xattrs)
	object.SortXattrs(all)
	return got.mode, all, nil
}

// On xfs an access control list is listed a second time, in the filesystem's own form, and hashed with the rest.
const (
	aclShadow        = "trusted.SGI_ACL_FILE"
	aclDefaultShadow = "trusted.SGI_ACL_DEFAULT"
)

// WithoutShadows returns attributes without the second forms of access control lists. Wherever the lists are set the filesystem makes what
// second forms it has; those of another would be attributes that the file does not have.
func WithoutShadows(xattrs []object.Xattr) []object.Xattr {
	has := func(name string) bool {
		return slices.ContainsFunc(xattrs, func(x object.Xattr) bool { return x.Name == name })
	}
	file, dir := has(aclAccess) && has(aclShadow), has(aclDefault) && has(aclDefaultShadow)
	if !file && !dir {
		return xattrs
	}
	return slices.DeleteFunc(slices.Clone(xattrs), func(x object.Xattr) bool {
		return file && x.Name == aclShadow || dir && x.Name == aclDefaultShadow
	})
}

// trySettle sets mode and attributes on a nameless file or an empty directory and reads them back.
func (s *Stage) trySettle(mode uint32, ask []object.Xattr) (settlement, error) {
	fd, done, err := s.settleOn(mode)
	if err != nil {
		return settlement{}, fmt.Errorf("try attributes: %w", err)
	}
	defer done()
	if err := unix.Fchmod(fd, mode&0o7777); err != nil {
		return settlement{}, fmt.Errorf("try mode %o: %w", mode, err)
	}
	for _, x := range ask {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return settlement{}, &AttributeError{x.Name, err}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return settlement{}, err
	}
	all, err := fileAttributes(fd)
	if err != nil {
		return settlement{}, &AttributeError{ask[0].Name, err}
	}
	all = slices.DeleteFunc(all, func(x object.Xattr) bool { return !interpreted(x.Name) })
	return settlement{st.Mode, all}, nil
}

// settleOn makes something of the mode's type to try attributes on.
func (s *Stage) settleOn(mode uint32) (fd int, done func(), err error) {
	if mode&unix.S_IFMT == unix.S_IFREG {
		f, err := s.r.scratch()
		if err != nil {
			return -1, nil, err
		}
		return int(f.Fd()), func() { f.Close() }, nil
	}
	name := s.spareName()
	if err := s.r.disk.mkdir(int(s.own.Fd()), name); err != nil {
		return -1, nil, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	if fd, err = openDir(int(s.own.Fd()), name); err != nil {
		return -1, nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, func() { unix.Close(fd); s.r.disk.removeDir(int(s.own.Fd()), name) }, nil
}
