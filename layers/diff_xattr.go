package layers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// An attrSource reads the extended attributes of one inode: through its descriptor, or without one by a path whose last
// component is not followed.
type attrSource struct {
	fd   int // -1: use path
	path string
}

// list returns the names of all attributes; none where the filesystem has no attributes.
func (a attrSource) list() ([]string, error) {
	var small [256]byte
	b := small[:]
	for {
		n, err := a.listInto(b)
		switch {
		case err == unix.ENOTSUP || (err == nil && n == 0):
			return nil, nil
		case err == unix.ERANGE && len(b) < 64<<10:
			b = make([]byte, 64<<10) // XATTR_LIST_MAX
		case err != nil:
			return nil, fmt.Errorf("list attributes: %w", err)
		default:
			return strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00"), nil
		}
	}
}

func (a attrSource) listInto(b []byte) (int, error) {
	return retryEINTR(func() (int, error) {
		if a.fd >= 0 {
			return unix.Flistxattr(a.fd, b)
		}
		return unix.Llistxattr(a.path, b)
	})
}

// get returns the value of an attribute, and whether there is one.
func (a attrSource) get(name string) ([]byte, bool, error) {
	for b := make([]byte, 256); ; {
		n, err := a.getInto(name, b)
		switch {
		case err == unix.ENODATA || err == unix.ENOTSUP:
			return nil, false, nil
		case err == unix.ERANGE && len(b) < 64<<10:
			b = make([]byte, 64<<10) // XATTR_SIZE_MAX
		case err != nil:
			return nil, false, fmt.Errorf("read attribute %q: %w", name, err)
		default:
			return b[:n:n], true, nil
		}
	}
}

func (a attrSource) getInto(name string, b []byte) (int, error) {
	return retryEINTR(func() (int, error) {
		if a.fd >= 0 {
			return unix.Fgetxattr(a.fd, name, b)
		}
		return unix.Lgetxattr(a.path, name, b)
	})
}

// overlayPrefix is what the names of overlay's own attributes begin with.
func overlayPrefix(userXattr bool) string {
	if userXattr {
		return "user.overlay."
	}
	return "trusted.overlay."
}

// isOpaque says whether a directory hides all that is below it.
func isOpaque(a attrSource, userXattr bool) (bool, error) {
	var v [2]byte
	n, err := a.getInto(overlayPrefix(userXattr)+"opaque", v[:])
	switch err {
	case nil:
		return n == 1 && v[0] == 'y', nil
	case unix.ENODATA, unix.ENOTSUP, unix.ERANGE:
		return false, nil
	}
	return false, fmt.Errorf("read opaque mark: %w", err)
}

// allAttrs reads every attribute of an upper directory's entry but the SELinux label, as a process in the container sees
// them: those that overlayfs keeps for itself are left out, and those it escaped get their own names back.
func allAttrs(a attrSource, m idMaps, userXattr bool) (map[string]string, error) {
	names, err := a.list()
	if err != nil {
		return nil, err
	}
	prefix := overlayPrefix(userXattr)
	var attrs map[string]string
	for _, name := range names {
		shown := name
		if rest, ours := strings.CutPrefix(name, prefix); ours {
			inner, escaped := strings.CutPrefix(rest, "overlay.")
			if !escaped {
				continue
			}
			shown = prefix + inner
		}
		if name == labelXattr {
			continue
		}
		if attrs, err = addAttr(attrs, a, name, shown, m); err != nil {
			return nil, err
		}
	}
	return attrs, nil
}

func addAttr(attrs map[string]string, a attrSource, name, shown string, m idMaps) (map[string]string, error) {
	v, ok, err := a.get(name)
	if errors.Is(err, unix.E2BIG) {
		return attrs, nil
	}
	if err != nil || !ok {
		return attrs, err
	}
	switch name {
	case capsXattr:
		v, err = mapCapability(v, m)
	case aclXattr, defaultACLXattr:
		v, err = mapACL(v, m)
	}
	if err != nil {
		return nil, fmt.Errorf("map ids in attribute %q: %w", name, err)
	}
	if attrs == nil {
		attrs = make(map[string]string, 2)
	}
	attrs[shown] = string(v)
	return attrs, nil
}

// Layout of a security.capability value, from include/uapi/linux/capability.h: all numbers are little-endian, the first
// holds the revision in its top byte, and revision 3 has the id of its namespace's root at the end.
const (
	capRevisionMask = 0xff000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capSize2        = 20
	capSize3        = 24
)

// mapCapability turns the root id of a namespaced capability from the host's view into the container's. One of the
// container's own root becomes the plain form, as the kernel shows it inside.
func mapCapability(v []byte, m idMaps) ([]byte, error) {
	if m.empty() || len(v) != capSize3 {
		return v, nil
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&capRevisionMask != capRevision3 {
		return v, nil
	}
	root, err := mapID(binary.LittleEndian.Uint32(v[capSize2:]), m.uids)
	if err != nil {
		return nil, err
	}
	if root == 0 {
		v = v[:capSize2:capSize2]
		binary.LittleEndian.PutUint32(v, magic&^capRevisionMask|capRevision2)
		return v, nil
	}
	binary.LittleEndian.PutUint32(v[capSize2:], uint32(root))
	return v, nil
}

// mapACL turns the users and groups that a POSIX ACL names into the container's. A value of unknown layout passes as it is.
func mapACL(v []byte, m idMaps) ([]byte, error) {
	const header, entry, user, group = 4, 8, 0x02, 0x08
	if m.empty() || len(v) < header || (len(v)-header)%entry != 0 || binary.LittleEndian.Uint32(v) != 2 {
		return v, nil
	}
	for e := v[header:]; len(e) > 0; e = e[entry:] {
		maps := m.uids
		switch binary.LittleEndian.Uint16(e) {
		case user:
		case group:
			maps = m.gids
		default:
			continue
		}
		id, err := mapID(binary.LittleEndian.Uint32(e[4:]), maps)
		if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(e[4:], uint32(id))
	}
	return v, nil
}
