package differential

import (
	"bytes"
	"fmt"

	graphdriver "go.podman.io/storage/drivers"
)

// writable puts a layer for a container on top, compares its root, does the same
// steps in both, and compares root, reports and diff; then it makes that diff a
// layer, as a commit does, and compares that layer's root.
func (r *run) writable() error {
	if len(r.ids) == 0 {
		return nil
	}
	top := r.ids[len(r.ids)-1]
	id := r.id(len(r.ids)) + "w"
	image := r.r.IntN(3) == 0 // a layer that is made read-only and filled through its mount
	for _, s := range []*Side{r.p.Oracle, r.p.Ours} {
		create := s.Driver.CreateReadWrite
		if image {
			create = s.Driver.Create
		}
		if err := create(id, top, &graphdriver.CreateOpts{}); err != nil {
			return r.ourFault("create", fmt.Errorf("create %s of %s: %w", id, s.Name, err))
		}
	}
	r.ids = append(r.ids, id)
	implied := r.implied(len(r.chain))
	implied["."] = true // the new layer's own
	r.rules.Implied = implied
	want, got, err := on(r.p, func(s *Side) (*Tree, error) { return s.Tree(id) })
	if err != nil {
		return r.ourFault("mount", err)
	}
	r.add("root of the container", Compare(want, got, r.rules)...)
	if len(r.out) > 0 {
		return nil
	}
	if err := r.script(id, top, MakeScript(r.r, want)); err != nil || len(r.out) > 0 {
		return err
	}
	return r.commit(id, top)
}

func (r *run) script(id, top string, script Script) error {
	type outcome struct {
		results []string
		tree    *Tree
	}
	want, got, err := on(r.p, func(s *Side) (o outcome, err error) {
		err = s.Mounted(id, func(root string) error {
			o.results = script.Run(root)
			o.tree, err = Walk(root)
			return err
		})
		if err != nil {
			err = fmt.Errorf("script in %s of %s: %w", id, s.Name, err)
		}
		return o, err
	})
	if err != nil {
		return r.ourFault("script", err)
	}
	r.p.Stats.Steps += len(script)
	for i, w := range want.results {
		if g := got.results[i]; w != g {
			r.add(fmt.Sprintf("step %d", i), Difference{Path: script[i].Path, What: script[i].String(), Want: w, Got: g})
			return nil
		}
	}
	r.add("root after the script", Compare(want.tree, got.tree, r.rules)...)
	if len(r.out) > 0 {
		return nil
	}
	return r.report("the container", id, top, r.rules.Implied)
}

// commit applies the container's diff, the oracle's bytes for both.
func (r *run) commit(id, top string) error {
	if _, err := r.p.Oracle.Driver.DiffSize(id, nil, top, nil, ""); unreadable(err) {
		return nil // the oracle's tar lacks what is below
	}
	b, err := r.p.Oracle.Diff(id, top)
	if err != nil {
		return err
	}
	l, err := ReadLayer(bytes.NewReader(b))
	if err != nil {
		return err
	}
	committed := id + "c"
	for _, s := range []*Side{r.p.Oracle, r.p.Ours} {
		if _, err := s.Apply(committed, top, b, r.staged); err != nil && !unreadable(err) {
			return r.ourFault("commit", fmt.Errorf("apply the diff %s of %s: %w", id, s.Name, err))
		}
	}
	r.ids = append(r.ids, committed)
	r.rules.Implied = r.implied(len(r.chain), l)
	want, got, err := on(r.p, func(s *Side) (*Tree, error) { return s.Tree(committed, "ro") })
	if err != nil {
		return r.ourFault("mount", err)
	}
	rules := r.rules
	rules.ImageRoot = true
	r.add("root of the committed layer", Compare(want, got, rules)...)
	return nil
}
