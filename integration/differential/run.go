package differential

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"
)

// Pair runs chains under two drivers on one filesystem.
type Pair struct {
	Oracle, Ours *Side
	SharedTimes  bool // the option mtime=shared is on
	SharedLinks  bool // the option links=shared is on
	// Tamper, if set, is called when the layers are applied and nothing is compared
	// yet: the test of the harness damages a tree of ours with it.
	Tamper func(ids []string) error
	Keep   int    // chains that stay applied, so that later ones meet known objects
	below  Chain  // what chains begin on
	under  string // and its uppermost layer
	kept   [][]string
	count  int
	Stats  Stats
}

// Stats say how much was compared, so that a harness that compares nothing is
// noticed.
type Stats struct {
	Chains, Layers, Paths, Steps int
	Refused                      int // layers that the oracle did not take
	Faults                       int // sizes, changes and tars that the oracle could not make
}

// Lay applies layers for chains to begin on, without a comparison. What the oracle refuses is left out.
func (p *Pair) Lay(c Chain) error {
	for _, l := range c {
		b, err := l.Tar()
		if err != nil {
			return err
		}
		id := fmt.Sprintf("below%d", len(p.below))
		if _, err := p.Oracle.Apply(id, p.under, b, false); err != nil {
			if err := p.Oracle.Driver.Remove(id); err != nil {
				return err
			}
			continue
		}
		if _, err := p.Ours.Apply(id, p.under, b, false); err != nil {
			return err
		}
		p.below, p.under = append(p.below, l), id
	}
	return nil
}

// Depth is how many layers chains begin on.
func (p *Pair) Depth() int { return len(p.below) }

// Run applies the chain under both drivers and returns what differs. An error
// is a fault of the harness or of the oracle, not a difference.
func (p *Pair) Run(seed uint64, c Chain) ([]Difference, error) {
	r := &run{
		p: p, r: rand.New(rand.NewPCG(seed, 2)), chain: c, staged: seed%2 == 0,
		rules: Rules{Started: time.Now().Add(-time.Second), SharedTimes: p.SharedTimes, SharedLinks: p.SharedLinks},
	}
	p.count++
	p.Stats.Chains++
	defer r.removeLater()
	err := r.all()
	return r.out, err
}

// run is one chain on its way.
type run struct {
	p      *Pair
	r      *rand.Rand
	chain  Chain
	staged bool
	rules  Rules
	ids    []string
	out    []Difference
}

func (r *run) all() error {
	steps := []func() error{r.apply, r.tamper, r.readOnly, r.reports, r.files, r.writable}
	for _, step := range steps {
		if err := step(); err != nil || len(r.out) > 0 {
			return err
		}
	}
	return nil
}

func (r *run) add(where string, list ...Difference) {
	for _, d := range list {
		d.Where = where
		r.out = append(r.out, d)
	}
}

// on runs f for both sides and returns both results, the oracle's first.
func on[T any](p *Pair, f func(*Side) (T, error)) (want, got T, err error) {
	if want, err = f(p.Oracle); err != nil {
		return want, got, err
	}
	got, err = f(p.Ours)
	return want, got, err
}

// implied returns the directories of the root of the first n layers, and more over them, that no layer lists.
func (r *run) implied(n int, more ...Layer) map[string]bool {
	return Chain(slices.Concat(r.p.below, r.chain[:n], more)).Implied()
}

func (r *run) id(i int) string { return fmt.Sprintf("c%dl%d", r.p.count, i) }

func (r *run) parent(i int) string {
	if i == 0 {
		return r.p.under
	}
	return r.ids[i-1]
}

// apply applies the layers. A layer that the oracle refuses ends the chain: what
// we make of it is our own affair, as long as nothing breaks.
func (r *run) apply() error {
	for i, l := range r.chain {
		b, err := l.Tar()
		if err != nil {
			return err
		}
		id, where := r.id(i), fmt.Sprintf("apply layer %d", i)
		want, err := r.p.Oracle.Apply(id, r.parent(i), b, r.staged)
		got, ourErr := r.p.Ours.Apply(id, r.parent(i), b, r.staged)
		noSize := unreadable(err)
		if err != nil && !noSize {
			r.p.Stats.Refused++
			r.chain = r.chain[:i]
			if ourErr == nil {
				return r.p.Ours.Driver.Remove(id)
			}
			return nil
		}
		r.ids = append(r.ids, id)
		r.p.Stats.Layers++
		if ourErr != nil && !(r.p.Ours.kind == r.p.Oracle.kind && unreadable(ourErr)) {
			r.add(where, Difference{What: "outcome", Want: "success", Got: ourErr.Error()})
			return nil
		}
		if want != got && !noSize {
			r.add(where, Difference{What: "size", Want: fmt.Sprint(want), Got: fmt.Sprint(got)})
		}
	}
	return nil
}

func (r *run) tamper() error {
	if r.p.Tamper == nil {
		return nil
	}
	return r.p.Tamper(r.ids)
}

// readOnly compares the root of each layer, mounted as images are.
func (r *run) readOnly() error {
	for i, id := range r.ids {
		r.rules.Implied = r.implied(i + 1)
		want, got, err := on(r.p, func(s *Side) (*Tree, error) { return s.Tree(id, "ro") })
		if err != nil {
			return r.ourFault("mount", err)
		}
		r.p.Stats.Paths += len(want.Nodes)
		rules := r.rules
		rules.ImageRoot = true
		r.add(fmt.Sprintf("root of layer %d", i), Compare(want, got, rules)...)
	}
	return nil
}

// ourFault turns an error of our side into a difference.
func (r *run) ourFault(where string, err error) error {
	if strings.Contains(err.Error(), " of "+r.p.Ours.Name) {
		r.add(where, Difference{What: "outcome", Want: "success", Got: err.Error()})
		return nil
	}
	return err
}

// reports compares what the drivers say about layers: sizes, changes, and the
// tars that they make themselves.
func (r *run) reports() error {
	for i, id := range r.ids {
		if err := r.report(fmt.Sprintf("layer %d", i), id, r.parent(i), r.implied(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// report compares one layer. Where the oracle itself fails, nothing is compared:
// some of its walks do not take what its mounts take.
func (r *run) report(where, id, parent string, implied map[string]bool) error {
	wantSize, gotSize, ok := ask(r, "size of "+where, func(s *Side) (int64, error) {
		return s.Driver.DiffSize(id, nil, parent, nil, "")
	})
	if !ok {
		return nil // the oracle's tar would lack what it cannot read, too
	}
	if wantSize != gotSize {
		r.add("size of "+where, Difference{What: "DiffSize", Want: fmt.Sprint(wantSize), Got: fmt.Sprint(gotSize)})
	}
	want, got, ok := ask(r, "changes of "+where, func(s *Side) ([]string, error) { return s.Changes(id, parent) })
	if ok {
		slices.Sort(want)
		slices.Sort(got)
		r.add("changes of "+where, compareLists(want, got)...)
	}
	wantTar, gotTar, ok := ask(r, "diff of "+where, func(s *Side) ([]byte, error) { return s.Diff(id, parent) })
	if !ok {
		return nil
	}
	rules := r.rules
	rules.Implied = implied
	list, err := CompareTars(wantTar, gotTar, rules)
	r.add("diff of "+where, list...)
	return err
}

// ask runs f for both sides. It is not ok if either fails; if only ours does,
// that is a difference.
func ask[T any](r *run, where string, f func(*Side) (T, error)) (want, got T, ok bool) {
	want, err := f(r.p.Oracle)
	if err != nil {
		r.p.Stats.Faults++
		return want, got, false
	}
	got, err = f(r.p.Ours)
	if err != nil {
		r.add(where, Difference{What: "outcome", Want: "success", Got: err.Error()})
	}
	return want, got, err == nil
}

// files asks our driver for the bytes of every file under its name in the tar,
// as a push does. What a later entry replaced is not asked for.
func (r *run) files() error {
	for i, id := range r.ids {
		where := fmt.Sprintf("files of layer %d", i)
		want := map[string][]byte{}
		var names []string
		for _, e := range r.chain[i] {
			if e.Type == tar.TypeReg && !isWhiteout(e.Name) && holds(r.p.Oracle.TreeDir(id), &e) {
				names, want[e.Name] = append(names, e.Name), e.Body
			}
		}
		got, err := r.p.Ours.Content(id, names)
		if err != nil {
			r.add(where, Difference{What: "outcome", Want: "success", Got: err.Error()})
			return nil
		}
		for _, name := range names {
			if !bytes.Equal(want[name], got[name]) {
				r.add(where, Difference{
					Path: name, What: "content by the tar's name", Want: fmt.Sprintf("%d bytes", len(want[name])), Got: fmt.Sprintf("%d bytes", len(got[name])),
				})
			}
		}
	}
	return nil
}

// removeLater removes the layers of an earlier chain.
func (r *run) removeLater() {
	p := r.p
	p.kept = append(p.kept, r.ids)
	for len(p.kept) > p.Keep {
		ids := p.kept[0]
		p.kept = p.kept[1:]
		for i := len(ids) - 1; i >= 0; i-- {
			for _, s := range []*Side{p.Oracle, p.Ours} {
				if err := s.Driver.Remove(ids[i]); err != nil {
					r.add("remove "+ids[i], Difference{What: "outcome on " + s.Name, Want: "success", Got: err.Error()})
				}
			}
		}
	}
}

// Implied returns the directories of the merged root that the highest layer
// which has them does not list.
func (c Chain) Implied() map[string]bool {
	implied := map[string]bool{}
	known := map[string]bool{}
	for i := len(c) - 1; i >= 0; i-- {
		listed, present := map[string]bool{}, map[string]bool{".": true}
		for _, e := range c[i] {
			name := clean(e.Name)
			if e.Type == tar.TypeDir && !isWhiteout(name) {
				listed[name], present[name] = true, true
			}
			for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
				present[dir] = true
			}
		}
		for dir := range present {
			if !known[dir] {
				known[dir], implied[dir] = true, !listed[dir]
			}
		}
	}
	return implied
}
