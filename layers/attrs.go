package layers

import (
	"archive/tar"
	"strings"

	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

const (
	labelXattr      = "security.selinux"
	capsXattr       = "security.capability"
	aclXattr        = "system.posix_acl_access"
	defaultACLXattr = "system.posix_acl_default"
)

// tarXattrs returns the extended attributes of a tar entry that overlay's extraction would set, in canonical order: labels are
// dropped, and so is what no filesystem takes, or what a user namespace refuses.
func tarXattrs(hdr *tar.Header, userNS bool) []object.Xattr {
	var list []object.Xattr
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if value == "" && (name == aclXattr || name == defaultACLXattr) {
			continue // removes a list, and there is none
		}
		if ok && settable(name, hdr.Typeflag, userNS) {
			list = append(list, object.Xattr{Name: name, Value: []byte(value)})
		}
	}
	object.SortXattrs(list)
	return list
}

// settable says whether setting an attribute can fail otherwise than with ENOTSUP, or in a user namespace EPERM, which
// containers/storage ignores.
func settable(name string, typeflag byte, userNS bool) bool {
	switch {
	case name == labelXattr:
		return false
	case strings.HasPrefix(name, "user."):
		plain := typeflag == tar.TypeReg || typeflag == tar.TypeDir || typeflag == tar.TypeLink
		return plain || !userNS
	case strings.HasPrefix(name, "trusted."):
		return !userNS
	case strings.HasPrefix(name, "security."):
		return !userNS || name == capsXattr
	case name == aclXattr, name == defaultACLXattr:
		return typeflag != tar.TypeSymlink
	}
	return false
}

// diskXattrs returns the attributes that an inode in `tree/` carries for a meta: those that overlayfs would act on have the name
// that it shows under their own. special says that the list differs from what an object holds, so that the inode must be one of its own.
func diskXattrs(m *meta, prefix string) (list []object.Xattr, special bool) {
	for _, x := range m.xattrs {
		if emptyXattr(x) || strings.HasPrefix(x.Name, prefix) {
			special = true
		}
	}
	if !special {
		return store.WithoutShadows(m.xattrs), false
	}
	for _, x := range store.WithoutShadows(m.xattrs) {
		if rest, ok := strings.CutPrefix(x.Name, prefix); ok {
			x.Name = prefix + "overlay." + rest
		}
		list = append(list, x)
	}
	object.SortXattrs(list)
	return list, true
}

// hasACL says whether the filesystem may change a mode for attributes.
func hasACL(xattrs []object.Xattr) bool {
	for _, x := range xattrs {
		if x.Name == aclXattr || x.Name == defaultACLXattr {
			return true
		}
	}
	return false
}
