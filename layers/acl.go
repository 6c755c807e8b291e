package layers

import (
	"bytes"
	"encoding/binary"

	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// The form of a POSIX access control list in an extended attribute: a version, then entries of tag, permissions and id.
const (
	aclHeader  = 4
	aclEntry   = 8
	aclVersion = 2
)

// Tags of the entries that chmod changes.
const (
	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
)

// chmodACL returns the access control list after a chmod: the owner's entry, the mask (without one, the group's entry) and the entry of others
// take the mode's bits. What is no list is returned as it is.
func chmodACL(acl []byte, mode uint32) []byte {
	entries, ok := aclEntries(acl)
	if !ok {
		return acl
	}
	out := bytes.Clone(acl)
	group := uint16(aclGroupObj)
	for i := range entries {
		if aclTag(out, i) == aclMask {
			group = aclMask
		}
	}
	for i := range entries {
		var bits uint32
		switch aclTag(out, i) {
		case aclUserObj:
			bits = mode >> 6
		case group:
			bits = mode >> 3
		case aclOther:
			bits = mode
		default:
			continue
		}
		binary.LittleEndian.PutUint16(out[aclHeader+i*aclEntry+2:], uint16(bits&7))
	}
	return out
}

// aclEntries returns how many entries a list has.
func aclEntries(acl []byte) (int, bool) {
	if len(acl) < aclHeader || binary.LittleEndian.Uint32(acl) != aclVersion || (len(acl)-aclHeader)%aclEntry != 0 {
		return 0, false
	}
	return (len(acl) - aclHeader) / aclEntry, true
}

func aclTag(acl []byte, i int) uint16 { return binary.LittleEndian.Uint16(acl[aclHeader+i*aclEntry:]) }

// modeOfACL returns the permission bits that an access control list stands for.
func modeOfACL(acl []byte) (mode uint32) {
	entries, _ := aclEntries(acl)
	group := uint32(0)
	mask := false
	for i := range entries {
		bits := uint32(binary.LittleEndian.Uint16(acl[aclHeader+i*aclEntry+2:])) & 7
		switch aclTag(acl, i) {
		case aclUserObj:
			mode |= bits << 6
		case aclMask:
			group, mask = bits, true
		case aclGroupObj:
			if !mask {
				group = bits
			}
		case aclOther:
			mode |= bits
		}
	}
	return mode | group<<3
}

// inherit returns m as a new inode in a directory gets it: the directory's default access control list becomes its own, after a chmod to
// m's mode; a directory passes it on.
func (m meta) inherit(dir *meta) meta {
	acl, ok := dir.find(defaultACLXattr)
	if _, valid := aclEntries(acl); !ok || !valid || m.mode&unix.S_IFMT == unix.S_IFLNK {
		return m
	}
	if _, own := m.find(aclXattr); !own {
		m = m.with(object.Xattr{Name: aclXattr, Value: chmodACL(acl, m.mode)})
	}
	if _, own := m.find(defaultACLXattr); !own && m.isDir() {
		m = m.with(object.Xattr{Name: defaultACLXattr, Value: acl})
	}
	return m
}
