package layers

import (
	"archive/tar"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// mkdir makes a directory with the metadata of one that the tar does not list.
func (g *ingest) mkdir(parent nodeID, name string) (nodeID, error) {
	if g.tree.inodeOf(parent).lane >= maxDepth {
		return noNode, errDeep
	}
	d, err := g.dirs.get(parent)
	if err != nil {
		return noNode, err
	}
	defer d.release()
	if err := unix.Mkdirat(d.fd, name, 0o755); err != nil {
		return noNode, fmt.Errorf("make the directory: %w", err)
	}
	above := g.metaOf(parent)
	m := g.implied(unix.S_IFDIR | 0o755 | above.mode&unix.S_ISGID)
	if acl, ok := above.find(defaultACLXattr); ok { // counts in place of the umask
		m.mode = m.mode&^0o777 | modeOfACL(acl)
	}
	id := g.tree.add(parent, name, kindDir)
	g.tree.node(id).flags |= nodeMade
	g.tree.inodeOf(id).meta = g.tree.metas.add(m.inherit(above))
	return id, nil
}

// metaOf returns what a node's inode has.
func (g *ingest) metaOf(id nodeID) *meta { return g.tree.metas.get(g.tree.inodeOf(id).meta) }

// implied is the meta of a directory that the tar does not list.
func (g *ingest) implied(mode uint32) meta {
	m := g.root
	m.mode = mode
	return m
}

// directory gives a directory what an entry says of it. An entry does not take away attributes that an earlier one set.
func (g *ingest) directory(id nodeID, hdr *tar.Header) error {
	m, err := g.meta(hdr, unix.S_IFDIR)
	if err != nil {
		return err
	}
	n, i := g.tree.node(id), g.tree.inodeOf(id)
	if before := g.tree.metas.get(i.meta); len(before.xattrs) > 0 {
		m = before.again(m)
	}
	n.flags &^= nodeImplied
	i.meta = g.tree.metas.add(m)
	i.setMTime(mtime(hdr))
	g.list(id, hdr.Name, i.mtime())
	return nil
}

// whiteout hides a name of the layers below, or all names if base is the opaque mark. What this layer has under the name is not meant: it stays, and
// a directory hides what is below it.
func (g *ingest) whiteout(parent nodeID, base string) error {
	if base == opaqueName {
		g.tree.node(parent).flags |= nodeOpaque
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if !validRawName(name) {
		return fmt.Errorf("%w %q", errWhiteout, base)
	}
	if old := g.tree.child(parent, name); old != noNode {
		if n := g.tree.node(old); n.kind == kindDir {
			n.flags |= nodeOpaque
		}
		return nil
	}
	d, err := g.dirs.get(parent)
	if err != nil {
		return err
	}
	defer d.release()
	if err := unix.Mknodat(d.fd, name, unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("make the whiteout: %w", err)
	}
	if err := setLabel(d.fd, name, g.label); err != nil {
		return err
	}
	g.tree.node(g.tree.add(parent, name, kindWhiteout)).flags |= nodeMade
	return nil
}

// file hands a regular file to the workers.
func (g *ingest) file(parent nodeID, base string, hdr *tar.Header, body io.Reader) error {
	m, err := g.meta(hdr, unix.S_IFREG)
	if err != nil {
		return err
	}
	id := g.tree.add(parent, base, kindFile)
	i := g.tree.inodeOf(id)
	i.val = uint64(hdr.Size)
	i.meta = g.tree.metas.add(m.inherit(g.metaOf(parent)))
	i.setMTime(mtime(hdr))
	if !g.opts.SharedLinks && g.tree.private(id) {
		i.flags |= inodePrivate
	}
	return g.put(id, hdr.Name, hdr.Size, bodyOf(hdr, body, g.in))
}

// symlink hands a symlink to the workers, or makes it where no object can hold its target.
func (g *ingest) symlink(parent nodeID, base string, hdr *tar.Header) error {
	m, err := g.meta(hdr, unix.S_IFLNK)
	if err != nil {
		return err
	}
	if hdr.Linkname == "" {
		return fmt.Errorf("symlink without a target: %w", unix.ENOENT)
	}
	if len(hdr.Linkname) > maxTarget {
		return fmt.Errorf("target of the symlink: %w", unix.ENAMETOOLONG)
	}
	kind := kindSymlink
	if !utf8.ValidString(hdr.Linkname) {
		kind = kindRawLink
	}
	id := g.tree.add(parent, base, kind)
	g.tree.setTarget(id, hdr.Linkname)
	i := g.tree.inodeOf(id)
	i.meta = g.tree.metas.add(m)
	i.setMTime(mtime(hdr))
	if kind == kindSymlink {
		return g.put(id, hdr.Name, 0, tarBody{})
	}
	return g.makeSpecial(id, func(dir int, name string) error { return unix.Symlinkat(hdr.Linkname, dir, name) })
}

// device makes a device or a fifo. Character device 0:0 acts as a whiteout in a mount, as it does under the overlay driver.
func (g *ingest) device(parent nodeID, base string, hdr *tar.Header) error {
	format := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	m, err := g.meta(hdr, format)
	if err != nil {
		return err
	}
	kind := kindDevice
	var major, minor uint32
	if hdr.Typeflag == tar.TypeFifo {
		kind = kindFifo
	} else {
		major, minor = uint32(hdr.Devmajor)&maxMajor, uint32(hdr.Devminor)&maxMinor
	}
	id := g.tree.add(parent, base, kind)
	i := g.tree.inodeOf(id)
	i.val = uint64(major)<<32 | uint64(minor)
	i.meta = g.tree.metas.add(m.inherit(g.metaOf(parent)))
	i.setMTime(mtime(hdr))
	return g.makeSpecial(id, func(dir int, name string) error {
		return unix.Mknodat(dir, name, format, int(unix.Mkdev(major, minor)))
	})
}

// makeSpecial makes an entry that has no object.
func (g *ingest) makeSpecial(id nodeID, make func(dir int, name string) error) error {
	d, err := g.dirs.get(g.tree.node(id).parent)
	if err != nil {
		return err
	}
	defer d.release()
	name := g.tree.name(id)
	if err := make(d.fd, name); err != nil {
		return fmt.Errorf("make the entry: %w", err)
	}
	g.tree.node(id).flags |= nodeMade
	i := g.tree.inodeOf(id)
	return g.dress(d.fd, name, g.tree.metas.get(i.meta), i.mtime())
}

// hardlink makes a further name of something earlier in the tar. The entry's owner, mode, time and attributes go to the inode,
// as in overlay's extraction; those of a symlink's inode only in part.
func (g *ingest) hardlink(parent nodeID, base string, hdr *tar.Header) error {
	to, err := g.linkTarget(hdr.Linkname)
	if err != nil {
		return err
	}
	kind := g.tree.node(to).kind
	if kind == kindWhiteout {
		return g.whiteout(parent, whiteoutPrefix+base)
	}
	id := g.tree.link(parent, base, to)
	n := g.tree.node(id)
	g.groups[n.inode] = append(g.groups[n.inode], id)
	g.links = append(g.links, id)

	i := g.tree.inode(n.inode)
	before := g.tree.metas.get(i.meta)
	m, err := g.meta(hdr, before.mode&unix.S_IFMT)
	if err != nil {
		return err
	}
	if g.o.ForceMask != nil {
		m.uid, m.gid = before.uid, before.gid
	}
	after := before.again(m)
	t := mtime(hdr)
	if g.tree.isSymlink(id) {
		t = i.mtime()
	}
	private := kind == kindFile && i.flags&inodePrivate == 0 && !g.opts.SharedLinks && g.tree.private(id)
	if after.equal(before) && t == i.mtime() && !private {
		return nil
	}
	i.meta = g.tree.metas.add(after)
	i.setMTime(t)
	if private {
		i.flags |= inodePrivate
	}
	if i.flags&inodeStale == 0 {
		i.flags |= inodeStale
		g.stale = append(g.stale, n.inode)
	}
	return nil
}

// linkTarget finds what a hardlink names.
func (g *ingest) linkTarget(name string) (nodeID, error) {
	fail := func(err error) (nodeID, error) { return noNode, fmt.Errorf("hardlink to %q: %w", name, err) }
	dir, base := splitName(name)
	if base == "." {
		return fail(unix.EPERM)
	}
	p, err := g.find.locate(dir)
	if err != nil {
		return fail(err)
	}
	if len(p.missing) > 0 {
		return fail(unix.ENOENT)
	}
	to := g.tree.child(p.node, base)
	if to == noNode {
		return fail(unix.ENOENT)
	}
	if g.tree.node(to).kind == kindDir {
		return fail(unix.EPERM)
	}
	return to, nil
}
