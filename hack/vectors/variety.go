package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An entry is something to be made in a directory. The kind follows from what is
// set: a symlink has a target, a directory's name ends in a slash.
type entry struct {
	name     string
	body     string
	target   string
	mode     uint32
	uid, gid int
	xattrs   map[string]string
}

// capability is cap_net_raw+ep, as the kernel stores it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// accessList is "user:1000:rw-" beside 0644, as the kernel stores it.
const accessList = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xe8\x03\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"

// kinds are entries with all that a header can say.
var kinds = []entry{
	{name: "plain", body: "hello\n", mode: 0o644},
	{name: "empty", mode: 0o644},
	{name: "owned", body: "x", mode: 0o755, uid: 1000, gid: 1001},
	{name: "highest-owner", body: "x", mode: 0o600, uid: 4294967294, gid: 4294967294},
	{name: "suid", body: "s", mode: 0o4755},
	{name: "sgid-sticky", body: "s", mode: 0o3711, uid: 5, gid: 6},
	{name: "no-permission", body: "s"},
	{name: "link", target: "../a.txt"},
	{name: "link-owned", target: "plain", uid: 7, gid: 8},
	{name: "link-far", target: strings.Repeat("far/", 100)},
	{name: "link-ünicode", target: "zieĺ"},
	{name: "attributes", body: "xattr file", mode: 0o644, xattrs: map[string]string{"user.zeta": "z1", "user.alpha": "A", "user.emptyval": ""}},
	{name: "attribute-large", body: "w", mode: 0o644, xattrs: map[string]string{"user.large": strings.Repeat("v", 300), "user.a": "\x00\xff"}},
	{name: "capable", body: "c", mode: 0o755, xattrs: map[string]string{"security.capability": capability}},
	{name: "labelled", body: "hello\n", mode: 0o644, xattrs: map[string]string{"security.selinux": "system_u:object_r:usr_t:s0\x00"}},
	{name: "trusted", body: "t", mode: 0o644, xattrs: map[string]string{"trusted.overlay.opaque": "y"}},
	{name: "acl", body: "a", mode: 0o664, xattrs: map[string]string{"system.posix_acl_access": accessList}},
	{name: "dir/", mode: 0o755},
	{name: "dir/b", body: "b", mode: 0o644},
	{name: "dir/a", body: "a", mode: 0o644},
	{name: "dir/B", body: "B", mode: 0o644},
	{name: "dir/.wh.gone", mode: 0o644},
	{name: "dir/é", body: "e", mode: 0o644},
	{name: "dir/-", body: "-", mode: 0o644},
	{name: "dir/" + strings.Repeat("long", 63), body: "l", mode: 0o644},
	{name: "dir/" + strings.Repeat("d", 255) + "/", mode: 0o755},
	{name: "dir/empty/", mode: 0o700, uid: 3},
	{name: "sticky/", mode: 0o1777, xattrs: map[string]string{"user.dirattr": "dd"}},
	{name: "group/", mode: 0o2750, uid: 1000, gid: 1001, xattrs: map[string]string{"user.b": strings.Repeat("w", 400), "user.a": "1"}},
}

// variety makes a tree of all kinds, with directories large enough for framing
// offsets of every width that a tree can need.
func variety(path string) error {
	all := append([]entry{{name: "/", mode: 0o755}}, kinds...)
	// About 255 bytes, and about 65535: the sizes at which offsets widen, the
	// offsets themselves counted or not.
	for _, size := range []int{250, 251, 252, 253, 254, 255, 256, 257, 258, 65530, 65531, 65532, 65533, 65534, 65535, 65536, 65537, 65538} {
		all = append(all, sized(fmt.Sprintf("size%d/", size), size)...)
	}
	return build(path, all)
}

// sized returns a directory whose files take size bytes, without their framing
// offsets. A file takes its name and 34 bytes.
func sized(name string, size int) []entry {
	list := []entry{{name: name, mode: 0o755}}
	for i := 0; size > 0; i++ {
		length := 60
		if size < 2*(length+34) {
			length = min(size-34, 200)
		}
		size -= length + 34
		if size > 0 && size < 40 {
			length, size = length-40, size+40
		}
		file := fmt.Sprintf("%0*d", length, i)
		list = append(list, entry{name: name + file, body: "same", mode: 0o644})
	}
	return list
}

// build makes the entries below path.
func build(path string, entries []entry) error {
	for _, e := range entries {
		if err := e.make(path + "/" + e.name); err != nil {
			return fmt.Errorf("make %s: %w", e.name, err)
		}
	}
	return nil
}

func (e *entry) make(path string) error {
	var err error
	switch {
	case strings.HasSuffix(path, "/"):
		path = strings.TrimRight(path, "/")
		err = os.MkdirAll(path, 0o755)
	case e.target != "":
		return errors.Join(os.Symlink(e.target, path), os.Lchown(path, e.uid, e.gid))
	default:
		err = os.WriteFile(path, []byte(e.body), 0o600)
	}
	if err != nil {
		return err
	}
	if err := os.Chown(path, e.uid, e.gid); err != nil {
		return err
	}
	for name, value := range e.xattrs {
		if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return unix.Chmod(path, e.mode)
}
