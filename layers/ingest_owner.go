package layers

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"os"

	"github.com/ostree-storage/ostree-storage/store/object"
	"golang.org/x/sys/unix"
)

// An ownable says which owners this process can give to files: those that its user namespace maps.
type ownable struct {
	uid, gid   uint32 // the process's own
	uids, gids []IDMap
}

// readOwnable reads the mappings of the process's user namespace.
func readOwnable() (ownable, error) {
	o := ownable{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	var err error
	if o.uids, err = readIDMap("/proc/self/uid_map"); err != nil {
		return o, err
	}
	o.gids, err = readIDMap("/proc/self/gid_map")
	return o, err
}

// readIDMap reads lines of first id, first id outside, and length. ContainerID of the result is the id as this process sees it.
func readIDMap(path string) ([]IDMap, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var maps []IDMap
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var m IDMap
		if _, err := fmt.Sscan(s.Text(), &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// can says whether chown to that owner can succeed. It fails as a whole if one of the two ids has no mapping.
func (o *ownable) can(uid, gid uint32) bool { return covers(o.uids, uid) && covers(o.gids, gid) }

func covers(maps []IDMap, id uint32) bool {
	for _, m := range maps {
		if d := int(id) - m.ContainerID; d >= 0 && d < m.Size {
			return true
		}
	}
	return false
}

// overrideXattr is where a forced mode leaves what the tar said, for fuse-overlayfs and others to find.
const overrideXattr = "user.containers.override_stat"

// forced is what an entry gets if a mode is forced on all: that mode, the process's owner, and the true values in an attribute.
func (g *ingest) forced(m meta, hdr *tar.Header) meta {
	uid, gid := m.uid, m.gid
	m.uid, m.gid = uint32(os.Geteuid()), uint32(os.Getegid())
	if hdr.Typeflag == tar.TypeSymlink {
		return m
	}
	m.mode = m.mode&unix.S_IFMT | *g.o.ForceMask&0o7777
	if hdr.Typeflag == tar.TypeLink {
		return m
	}
	value := fmt.Sprintf("%d:%d:%04o:%s", uid, gid, hdr.Mode&0o7777, overrideType(hdr))
	return m.with(object.Xattr{Name: overrideXattr, Value: []byte(value)})
}

func overrideType(hdr *tar.Header) string {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return "dir"
	case tar.TypeFifo:
		return "pipe"
	case tar.TypeBlock:
		return fmt.Sprintf("block-%d-%d", hdr.Devmajor, hdr.Devminor)
	case tar.TypeChar:
		return fmt.Sprintf("char-%d-%d", hdr.Devmajor, hdr.Devminor)
	}
	return "file"
}

// forceRoot gives a root that the tar does not list what a forced mode leaves of it.
func (g *ingest) forceRoot() {
	if g.o.ForceMask == nil {
		return
	}
	i := g.tree.inodeOf(rootNode)
	m := *g.tree.metas.get(i.meta)
	if _, ok := m.find(overrideXattr); !ok {
		i.meta = g.tree.metas.add(m.with(object.Xattr{Name: overrideXattr, Value: []byte("0:0:0755:dir")}))
	}
}
