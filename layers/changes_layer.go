package layers

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// LayerChanges lists what a committed layer, the first of chain, changes over its ancestors, nearest first: what Changes gives for its
// directory over theirs, found from the commits. Ancestors that were written through a mount count with their directories too.
// The error matches ErrUnsupported if the first layer itself is not a commit and nothing else.
func LayerChanges(ctx context.Context, chain []*Layer) ([]Change, error) {
	top, err := openCommitLower(ctx, chain[0])
	if err != nil {
		return nil, err
	}
	loose, err := chain[0].Loose()
	if err != nil {
		return nil, err
	}
	if loose {
		return nil, fmt.Errorf("compare layer %s: written through a mount: %w", chain[0].ID, ErrUnsupported)
	}
	var lowers lowerTrees
	for _, l := range chain[1:] {
		own, closeDirs, err := lowersOf(ctx, l)
		if err != nil {
			return nil, err
		}
		defer closeDirs()
		lowers = append(lowers, own...)
	}
	f := &changeFinder{lowers: lowers}
	if err := f.commit(ctx, top, top.tree.root, ""); err != nil {
		return nil, fmt.Errorf("compare layer %s: %w", chain[0].ID, err)
	}
	return f.list.changes, nil
}

// lowersOf returns what a layer shows to those above it.
func lowersOf(ctx context.Context, l *Layer) (own lowerTrees, closeDirs func(), err error) {
	loose, err := l.Loose()
	if err != nil {
		return nil, nil, err
	}
	var dirs []string
	if loose {
		dirs = []string{l.DiffDir()}
	}
	own, closeDirs, err = openLowers(dirs)
	if err != nil || !l.Applied() {
		return own, closeDirs, err
	}
	c, err := openCommitLower(ctx, l)
	if err != nil {
		closeDirs()
		return nil, nil, err
	}
	return append(own, c), closeDirs, nil
}

// commit finds the changes below a directory of a commit.
func (f *changeFinder) commit(ctx context.Context, c *commitLower, dir *commitNode, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.enter(dir.name); err != nil {
		return err
	}
	defer f.leave()
	if path != "" {
		path += "/"
	}
	for _, n := range dir.kids {
		e := changedEntry{
			path:   path + n.name,
			st:     new(unix.Stat_t),
			opaque: func() (bool, error) { return n.opaque, nil },
			fresh:  n.implied,
		}
		e.size = func() int64 { return c.dirSize(e.path, e.st) }
		if n.kind == commitFile {
			e.st.Mode = unix.S_IFREG // or a symlink, which makes no difference
		} else if err := c.tree.statNode(n, e.st); err != nil {
			return err
		}
		if err := f.find(e); err != nil {
			return err
		}
		if n.kind == commitDir {
			if err := f.commit(ctx, c, n, e.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// A commitLower is the lowerTree of a layer's commit.
type commitLower struct {
	layer *Layer
	tree  *commitTree
}

func openCommitLower(ctx context.Context, l *Layer) (*commitLower, error) {
	if !l.Applied() {
		return nil, fmt.Errorf("compare layer %s: %w: %w", l.ID, errNotApplied, ErrUnsupported)
	}
	t, err := readCommitTree(ctx, l.catalog.repo, l.Commit)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.ID, err)
	}
	return &commitLower{layer: l, tree: t}, nil
}

func (c *commitLower) name() string { return "layer " + c.layer.ID }

// node returns what is at a path whose directories are no symlinks, or why there is nothing.
func (c *commitLower) node(path string) (*commitNode, error) {
	n := c.tree.root
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == "" {
			continue
		}
		if n.kind != commitDir {
			return nil, unix.ENOTDIR
		}
		if n = n.child(part); n == nil {
			return nil, unix.ENOENT
		}
	}
	return n, nil
}

func (c *commitLower) stat(path string, st *unix.Stat_t) error {
	n, err := c.node(path)
	if err != nil {
		return err
	}
	return c.tree.statNode(n, st)
}

func (c *commitLower) readlink(path string) (string, error) {
	n, err := c.node(path)
	if err != nil {
		return "", err
	}
	return c.target(n)
}

// target returns where a symlink leads.
func (c *commitLower) target(n *commitNode) (string, error) {
	if n.kind == commitSpecial {
		return n.special.Target, nil
	}
	h, err := c.tree.header(n)
	if err != nil {
		return "", err
	}
	return h.Target, nil
}

// dirSize asks the checkout: a commit does not know how large a filesystem makes directories.
func (c *commitLower) dirSize(path string, _ *unix.Stat_t) int64 {
	var st unix.Stat_t
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(c.layer.TreeDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	if exists, err := statInRoot(fd, path, &st); err != nil || !exists {
		return -1
	}
	return st.Size
}

// maxKernelSymlinks is how many symlinks the kernel follows in one path.
const maxKernelSymlinks = 40

// statInRoot finds a path as the kernel would in a checkout.
func (c *commitLower) statInRoot(path string, st *unix.Stat_t) (exists bool, err error) {
	stack := []*commitNode{c.tree.root}
	rest, links := strings.Split(path, "/"), 0
	for len(rest) > 0 {
		part, at := rest[0], stack[len(stack)-1]
		rest = rest[1:]
		if at.kind != commitDir {
			return false, nil // not a directory
		}
		switch part {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		n := at.child(part)
		if n == nil {
			return false, nil
		}
		if err := c.tree.statNode(n, st); err != nil {
			return false, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			stack = append(stack, n)
			continue
		}
		if links++; links > maxKernelSymlinks {
			return false, unix.ELOOP
		}
		target, err := c.target(n)
		if err != nil {
			return false, err
		}
		if strings.HasPrefix(target, "/") {
			stack = stack[:1]
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return true, c.tree.statNode(stack[len(stack)-1], st)
}
