package layers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
)

// Labels gives a root SELinux labels of its own. The numbers are what came of it.
type Labels struct {
	// Of returns the label of an absolute path with a mode; "" leaves the path the store label, or none if the store has none.
	Of func(path string, mode uint32) string

	Labelled  int64    // inodes that have a label from Of, directories apart
	New       int64    // of them, lanes that were not there before
	NewBytes  int64    // and the size of their content, which is shared with the store where the filesystem has reflinks
	Conflicts []string // names of hardlinks whose label would be another than that of the first name, which counts; the first few
}

// maxConflicts is how many conflicts are listed.
const maxConflicts = 100

// A labelling is what a flattener knows of the lanes of one repository.
type labelling struct {
	*store.Labelling
	made []labelled // new inodes
}

// A labelled is a name and its inode.
type labelled struct {
	id   nodeID
	file store.Labelled
}

// flattenLabelled makes the tree with labels, and lanes of its new inodes.
func (f *flattener) flattenLabelled(dst string, root int) (err error) {
	if err := f.checkLabels(dst, root); err != nil {
		return err
	}
	f.own = map[*Catalog]*labelling{}
	defer func() {
		for _, l := range f.own {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := f.dir(rootNode); err != nil {
		return err
	}
	for _, l := range f.own {
		err := l.Publish(f.ctx, func(add func(int, string, store.Labelled) error) error {
			for _, made := range l.made {
				if err := f.addLane(made, add); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *flattener) addLane(made labelled, add func(int, string, store.Labelled) error) error {
	d, err := f.to.get(f.m.tree.node(made.id).parent)
	if err != nil {
		return err
	}
	defer d.release()
	return add(d.fd, f.m.tree.name(made.id), made.file)
}

// checkLabels says early what would fail late: a filesystem that takes no labels, or a place where lanes cannot be linked.
func (f *flattener) checkLabels(dst string, root int) error {
	label := f.ownLabel(rootNode, unix.S_IFDIR)
	if label == "" {
		label = "system_u:object_r:unlabeled_t:s0" // any will do: it is taken away again
	}
	if err := setFdXattr(root, labelXattr, append([]byte(label), 0)); err != nil {
		return fmt.Errorf("%w: %s takes no SELinux labels, %s: %w", ErrUnsupported, dst, whyNoLabel(err), err)
	}
	if err := unix.Fremovexattr(root, labelXattr); err != nil && err != unix.EACCES && err != unix.ENODATA { // EACCES: SELinux is on
		return fmt.Errorf("remove attribute %q: %w", labelXattr, err)
	}
	if f.copy {
		return nil
	}
	d, err := f.to.get(rootNode)
	if err != nil {
		return err
	}
	defer d.release()
	for _, l := range f.m.chain {
		if err := sameMount(l.catalog.repo.Path(), dst, d.fd); err != nil {
			return err
		}
	}
	return nil
}

// whyNoLabel puts the kernel's answer into words.
func whyNoLabel(err error) string {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return "for its filesystem has no such attributes"
	case errors.Is(err, unix.EPERM):
		return "for only root of the host may set them, and not from within a user namespace"
	case errors.Is(err, unix.EINVAL):
		return "for the policy that the kernel runs does not know this one"
	}
	return "for the kernel refuses them"
}

// ownLabel is the label that a node is to have, "" if that is nobody's matter.
func (f *flattener) ownLabel(id nodeID, mode uint32) string {
	if f.labels == nil {
		return ""
	}
	if id == rootNode {
		return f.labels.Of("/", mode)
	}
	return f.labels.Of("/"+f.m.tree.path(id), mode)
}

// compareLabels notes a further name of an inode whose label would be another.
func (f *flattener) compareLabels(id, first nodeID) {
	t := f.m.tree
	if f.labels == nil || len(f.labels.Conflicts) >= maxConflicts {
		return
	}
	mode := t.metas.get(t.inodeOf(id).meta).mode
	if a, b := f.ownLabel(first, mode), f.ownLabel(id, mode); a != b {
		f.labels.Conflicts = append(f.labels.Conflicts, fmt.Sprintf("/%s would be %s, and is a hardlink to /%s, which is %s", t.path(id), b, t.path(first), a))
	}
}

// lane makes a file with a label of its own.
func (f *flattener) lane(dir int, id nodeID, from, layer int, label string) error {
	c := f.m.chain[layer].catalog
	l := f.own[c]
	if l == nil {
		made, err := store.NewLabelling(c.repo)
		if err != nil {
			return err
		}
		l = &labelling{Labelling: made}
		f.own[c] = l
	}
	p, err := l.Put(from, dir, f.m.tree.name(id), f.m.tree.inodeOf(id).sum, label)
	if err != nil {
		return err
	}
	if p.New {
		l.made = append(l.made, labelled{id, p})
		f.labels.New++
		f.labels.NewBytes += p.Size
	}
	return nil
}
