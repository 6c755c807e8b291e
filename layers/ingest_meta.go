package layers

import (
	"archive/tar"
	"fmt"
	"math"
	"strings"

	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// isWhiteoutName says whether the last component of a name makes the entry a whiteout or an opaque mark, whatever its type.
func isWhiteoutName(base string) bool { return strings.HasPrefix(base, whiteoutPrefix) }

// typeflag is the type that an entry is made as: with a forced mode everything but directories and links is a regular file.
func (g *ingest) typeflag(hdr *tar.Header) byte {
	if g.o.ForceMask == nil {
		return hdr.Typeflag
	}
	switch hdr.Typeflag {
	case tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		return hdr.Typeflag
	}
	return tar.TypeReg
}

// meta returns owner, mode and attributes of an entry as its own inode would get them; format is an S_IFMT value.
func (g *ingest) meta(hdr *tar.Header, format uint32) (meta, error) {
	uid, gid, err := g.owner(hdr)
	if err != nil {
		return meta{}, err
	}
	m := meta{uid: uid, gid: gid, mode: uint32(hdr.Mode)&0o7777 | format, xattrs: tarXattrs(hdr, g.opts.UserXattr)}
	if format == unix.S_IFLNK {
		m.mode = unix.S_IFLNK | 0o777
	}
	if g.o.ForceMask != nil {
		m = g.forced(m, hdr)
	}
	return m, nil
}

// owner returns the owner that an entry gets on disk.
func (g *ingest) owner(hdr *tar.Header) (uid, gid uint32, err error) {
	if uid, err = hostID(hdr.Uid, g.o.UIDMaps); err != nil {
		return 0, 0, err
	}
	if gid, err = hostID(hdr.Gid, g.o.GIDMaps); err != nil {
		return 0, 0, err
	}
	if g.o.IgnoreChownErrors && !g.owners.can(uid, gid) {
		uid, gid = g.owners.uid, g.owners.gid
	}
	return uid, gid, nil
}

// hostID maps an id of a container to one on disk. Without maps it is the same.
func hostID(id int, maps []IDMap) (uint32, error) {
	for _, m := range maps {
		if d := id - m.ContainerID; d >= 0 && d < m.Size {
			return checkID(m.HostID + d)
		}
	}
	if len(maps) > 0 {
		return 0, fmt.Errorf("map owner %d: %w", id, errUnmapped)
	}
	return checkID(id)
}

func checkID(id int) (uint32, error) {
	if id < 0 || id >= math.MaxUint32 { // the largest one means "leave it"
		return 0, fmt.Errorf("%w: %d", errOwner, id)
	}
	return uint32(id), nil
}

// again returns what an inode has after another entry for it was extracted over it: a directory that is listed twice, or a
// hardlink, whose header counts for the inode. Attributes stay unless they are set anew.
func (m meta) again(next meta) meta {
	out := next
	out.xattrs = m.xattrs
	if m.mode&unix.S_IFMT == unix.S_IFREG && (m.uid != next.uid || m.gid != next.gid) {
		out = out.without(capsXattr) // chown drops them
	}
	if acl, ok := out.find(aclXattr); ok {
		out = out.with(object.Xattr{Name: aclXattr, Value: chmodACL(acl, next.mode)})
	}
	for _, x := range next.xattrs {
		out = out.with(x)
	}
	return out
}

// equal compares two metas.
func (m *meta) equal(o *meta) bool {
	if m.uid != o.uid || m.gid != o.gid || m.mode != o.mode || len(m.xattrs) != len(o.xattrs) {
		return false
	}
	for i, x := range m.xattrs {
		if y := o.xattrs[i]; x.Name != y.Name || string(x.Value) != string(y.Value) {
			return false
		}
	}
	return true
}
