package layers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// FaultSegment says that a segment does not show what its layers show.
const FaultSegment FaultKind = "segment"

// checkSegment compares the segment whose uppermost layer is l with the layers' trees, which are checked by themselves. One that does not
// stand for its layers, and so is not mounted, is no fault.
func (c *Catalog) checkSegment(ctx context.Context, l *Layer, o *CheckOptions) (found []Fault, err error) {
	if _, err := c.readSegment(l.ID); err != nil {
		return nil, nil
	}
	here := Catalogs{c}
	_, covered, err := here.segments(append([]string{l.ID}, l.Ancestors...))
	if err != nil || covered != 1+len(l.Ancestors) {
		return nil, err
	}
	chain, err := here.Chain(l.ID)
	if err != nil {
		return nil, nil // the record's fault
	}
	k := c.o.segment()
	m, err := mergeOver(ctx, chain[:k], chain[k:])
	if err != nil {
		return nil, ctx.Err() // that of a commit
	}
	for _, part := range []Flat{{}, {twice: true}} {
		name := treeDirName
		if part.twice {
			name = segmentDirs
		}
		if part.twice && !m.twice {
			continue
		}
		s := &segmentCheck{flattener: flattener{m: m, ctx: ctx, twice: part.twice}, quick: o.Quick}
		if err := s.run(l.segmentDir() + "/" + name); err != nil {
			return nil, err
		}
		for _, f := range s.found {
			found = append(found, Fault{Kind: FaultSegment, Layer: l.ID, Reason: fmt.Sprintf("%q: %s", name+"/"+f.path, f.reason)})
		}
	}
	return found, nil
}

// A segmentCheck walks one tree of a segment.
type segmentCheck struct {
	flattener
	quick bool
	found []segmentFault
}

type segmentFault struct{ path, reason string }

func (s *segmentCheck) fault(id nodeID, reason string, args ...any) {
	if len(s.found) < maxTreeFaults {
		s.found = append(s.found, segmentFault{s.m.tree.path(id), fmt.Sprintf(reason, args...)})
	}
}

func (s *segmentCheck) run(dir string) error {
	root, err := openDirAt(unix.AT_FDCWD, dir)
	if err != nil {
		s.fault(rootNode, "open it: %v", err)
		return nil
	}
	s.to = newTreeDirs(s.m.tree, root)
	defer s.close()
	if err := s.openTrees(); err != nil {
		return err
	}
	return s.dir(rootNode)
}

// dir looks at a directory, at what is in it, and then at those below.
func (s *segmentCheck) dir(id nodeID) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	s.content(id)
	t := s.m.tree
	return t.children(id, func(c nodeID) error {
		if t.node(c).kind != kindDir || s.leftOut(c) {
			return nil
		}
		return s.dir(c)
	})
}

func (s *segmentCheck) content(id nodeID) {
	t := s.m.tree
	d, err := s.to.get(id)
	if err != nil {
		s.fault(id, "open it: %v", err)
		return
	}
	defer d.release()
	names, err := dirNames(d.fd)
	if err != nil {
		s.fault(id, "list it: %v", err)
		return
	}
	there := make(map[string]bool, len(names))
	for _, n := range names {
		there[n] = true
	}
	from := make(map[int]int) // the directory in the layers' trees
	defer func() {
		for _, fd := range from {
			unix.Close(fd)
		}
	}()
	_ = t.children(id, func(c nodeID) error {
		if s.leftOut(c) {
			return nil
		}
		delete(there, t.name(c))
		if reason := s.entry(d.fd, c, from); reason != "" {
			s.fault(c, "%s", reason)
		}
		return nil
	})
	for n := range there {
		s.fault(id, "%q is in none of the layers", n)
	}
}

// entry says what is wrong with a name.
func (s *segmentCheck) entry(dir int, id nodeID, from map[int]int) string {
	t := s.m.tree
	n, name := t.node(id), t.name(id)
	var got, want unix.Stat_t
	if err := unix.Fstatat(dir, name, &got, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "stat: " + err.Error()
	}
	if n.kind == kindWhiteout {
		if got.Mode&unix.S_IFMT != unix.S_IFCHR || got.Rdev != 0 {
			return "it is no whiteout"
		}
		return ""
	}
	layer := int(t.inode(n.inode).home)
	if _, ok := from[layer]; !ok {
		fd, err := s.openLayerDir(layer, n.parent)
		if err != nil {
			return "" // its layer lacks it, which is that layer's fault
		}
		from[layer] = fd
	}
	if unix.Fstatat(from[layer], name, &want, unix.AT_SYMLINK_NOFOLLOW) != nil || got.Ino == want.Ino && got.Dev == want.Dev {
		return ""
	}
	if reason := differentStat(&got, &want); reason != "" {
		return reason
	}
	opaque := n.kind == kindDir && n.flags&nodeOpaque != 0 && !s.twice
	return s.different(dir, from[layer], name, &want, opaque)
}

// differentStat says in what a copy is not what was copied, by their inodes.
func differentStat(got, want *unix.Stat_t) string {
	switch {
	case got.Mode != want.Mode:
		return fmt.Sprintf("its mode is %o, and in the layer %o", got.Mode, want.Mode)
	case got.Uid != want.Uid || got.Gid != want.Gid:
		return fmt.Sprintf("its owner is %d:%d, and in the layer %d:%d", got.Uid, got.Gid, want.Uid, want.Gid)
	case got.Mtim != want.Mtim:
		return "its time is not that in the layer"
	case got.Mode&unix.S_IFMT == unix.S_IFDIR:
		return ""
	case got.Size != want.Size || got.Rdev != want.Rdev:
		return fmt.Sprintf("its size is %d, and in the layer %d", got.Size, want.Size)
	}
	return ""
}

// different says in what else a copy is not what was copied.
func (s *segmentCheck) different(dir, from int, name string, st *unix.Stat_t, opaque bool) string {
	mark := overlayPrefix(s.m.chain[0].catalog.o.UserXattr) + "opaque"
	var lists [2][]object.Xattr
	for i, fd := range []int{dir, from} {
		list, err := xattrsAt(fd, name)
		if err != nil {
			return "attributes: " + err.Error()
		}
		if i == 0 && opaque != slices.ContainsFunc(list, func(x object.Xattr) bool { return x.Name == mark }) {
			return "whether it hides what is below is not what the layers say"
		}
		list = slices.DeleteFunc(list, func(x object.Xattr) bool { return x.Name == mark })
		object.SortXattrs(list)
		lists[i] = list
	}
	if !object.EqualXattrs(lists[0], lists[1]) {
		return "its attributes are not those in the layer"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if s.quick {
			return ""
		}
		return differentContent(dir, from, name)
	case unix.S_IFLNK:
		var a, b [maxTarget + 1]byte
		n, err := unix.Readlinkat(dir, name, a[:])
		if err != nil {
			return err.Error()
		}
		if m, err := unix.Readlinkat(from, name, b[:]); err == nil && !bytes.Equal(a[:n], b[:m]) {
			return "its target is not that in the layer"
		}
	}
	return ""
}

// differentContent compares two files.
func differentContent(dir, from int, name string) string {
	var files [2]*os.File
	for i, fd := range []int{dir, from} {
		f, err := openAt(fd, name)
		if err != nil {
			return "open: " + err.Error()
		}
		defer f.Close()
		files[i] = f
	}
	var blocks [2][64 << 10]byte
	for {
		var n [2]int
		for i, f := range files {
			var err error
			if n[i], err = io.ReadFull(f, blocks[i][:]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return "read: " + err.Error()
			}
		}
		if !bytes.Equal(blocks[0][:n[0]], blocks[1][:n[1]]) {
			return "its content is not that in the layer"
		}
		if n[0] < len(blocks[0]) {
			return ""
		}
	}
}

// mendSegment makes sure that a segment is not mounted any more: its layers are.
func (c *Catalog) mendSegment(id string, o RepairOptions) (string, error) {
	list := (&Layer{ID: id, catalog: c}).segmentDir() + "/" + segmentLayers
	if !exists(list) {
		return "", nil // that was one of several faults
	}
	if !o.DryRun {
		if err := os.Remove(list); err != nil {
			return "", err
		}
	}
	return "its layers are mounted in its place", nil
}
