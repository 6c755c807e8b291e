package layers

import "context"

// mergeOver merges a chain that lies over another. Whiteouts and opaque directories are there where they hide something, or
// where the kernel lists whiteouts.
func mergeOver(ctx context.Context, chain, below []*Layer) (*Merged, error) {
	under, err := Merge(ctx, below)
	if err != nil {
		return nil, err
	}
	root := under.tree.metas.get(under.tree.inodeOf(rootNode).meta)
	m, err := (&Merged{tree: newLayerTree(*root, nil), marks: true}).merge(ctx, chain)
	if err != nil {
		return nil, err
	}
	p := &pruner{over: m.tree, under: under.tree}
	p.over.node(rootNode).flags = nodeMerged // the roots of all layers are stacked
	m.twice = p.dir(rootNode, rootNode)
	return m, nil
}

// A pruner drops the marks of a tree that hide nothing of the tree under it. And it marks the directories that overlayfs merges as long as
// the layers are many, and would not in one tree: it shows a link count of 1 for them, and no whiteouts.
type pruner struct{ over, under *layerTree }

// dir prunes a directory, and says if it or one below is to be there twice; under is what it lies over, noNode if that is nothing or
// no directory.
func (p *pruner) dir(id, under nodeID) (twice bool) {
	n := p.over.node(id)
	if under == noNode {
		n.flags &^= nodeOpaque
	}
	if n.flags&nodeOpaque != 0 {
		under = noNode
	}
	// In a directory that one layer alone has, the kernel lists whiteouts, and so it is to go on.
	listed := under == noNode && n.flags&nodeMerged == 0
	twice = id != rootNode && under == noNode && n.flags&nodeMerged != 0
	_ = p.over.children(id, func(c nodeID) error {
		below := noNode
		if under != noNode {
			below = p.under.child(under, p.over.name(c))
		}
		switch p.over.node(c).kind {
		case kindWhiteout:
			if below == noNode && !listed {
				p.over.drop(c)
			}
		case kindDir:
			if below != noNode && p.under.node(below).kind != kindDir {
				below = noNode
			}
			twice = p.dir(c, below) || twice
		}
		return nil
	})
	if twice {
		n.flags |= nodeTwice
	}
	return twice
}
