package pins

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.podman.io/storage"
)

// A state is which layers the pinned store has, and who needs them.
type state struct {
	layers map[string]storage.Layer
	images []storage.Image
	needed map[string]bool   // by registered graphroots, ancestors included
	by     map[string][]Need // who stands on a layer
}

func (s *Store) state(n *needs) (*state, error) {
	st := &state{layers: map[string]storage.Layer{}, needed: map[string]bool{}, by: map[string][]Need{}}
	all, err := s.own.Layers()
	if err != nil {
		return nil, fmt.Errorf("list the layers of the pinned store: %w", err)
	}
	for _, l := range all {
		if s.has(l.ReadOnly) {
			st.layers[l.ID] = l
		}
	}
	images, err := s.own.Images()
	if err != nil {
		return nil, fmt.Errorf("list the images of the pinned store: %w", err)
	}
	for _, i := range images {
		if s.has(i.ReadOnly) {
			st.images = append(st.images, i)
		}
	}
	for _, need := range n.list {
		if _, ok := st.layers[need.Parent]; ok {
			st.by[need.Parent] = append(st.by[need.Parent], need)
			st.mark(need.Parent, st.needed)
		}
	}
	return st, nil
}

// mark adds a layer and its ancestors to a set.
func (st *state) mark(id string, set map[string]bool) {
	for id != "" && !set[id] {
		l, ok := st.layers[id]
		if !ok {
			return
		}
		set[id] = true
		id = l.Parent
	}
}

// used are the layers of all images but those of without.
func (st *state) used(without []string) map[string]bool {
	set := map[string]bool{}
	for _, i := range st.images {
		if slices.Contains(without, i.ID) {
			continue
		}
		for _, top := range append([]string{i.TopLayer}, i.MappedTopLayers...) {
			st.mark(top, set)
		}
	}
	return set
}

// depth counts a layer's ancestors.
func (st *state) depth(id string) int {
	n := 0
	for l, ok := st.layers[id]; ok && n <= len(st.layers); l, ok = st.layers[l.Parent] {
		n++
	}
	return n
}

// loose are the layers that nothing needs once some images are gone, children before parents.
func (st *state) loose(without []string) []string {
	used := st.used(without)
	var out []string
	for id := range st.layers {
		if !used[id] && !st.needed[id] {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if d := st.depth(b) - st.depth(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return out
}

// held are the layers of no image.
func (st *state) held() []Held {
	used := st.used(nil)
	out := []Held{}
	for id, l := range st.layers {
		if !used[id] {
			out = append(out, Held{id, l.Parent, st.by[id]})
		}
	}
	slices.SortFunc(out, func(a, b Held) int { return strings.Compare(a.Layer, b.Layer) })
	return out
}

// A Listed is a pin as it is listed.
type Listed struct {
	Pin
	Names   []string `json:"names"`
	Missing bool     `json:"missing,omitempty"` // the image has no record
	Unnamed bool     `json:"unnamed,omitempty"` // the image has no entry in the table: it is a pin named by its ID
	Expired bool     `json:"expired,omitempty"`
}

// List returns every pin.
func (s *Store) List() ([]Listed, error) {
	t, err := readTable(s.o.Path)
	if err != nil {
		return nil, err
	}
	st, err := s.state(&needs{})
	if err != nil {
		return nil, err
	}
	images := map[string]storage.Image{}
	unnamed := map[string]bool{}
	for _, i := range st.images {
		images[i.ID] = i
		if len(t.of(i.ID)) == 0 {
			unnamed[i.ID] = true
			t.Pins = append(t.Pins, Pin{Name: i.ID, Image: i.ID, Since: i.Created.UTC()})
		}
	}
	out := make([]Listed, 0, len(t.Pins))
	now := time.Now()
	for _, p := range t.Pins {
		i, ok := images[p.Image]
		out = append(out, Listed{Pin: p, Names: append([]string{}, i.Names...), Missing: !ok, Unnamed: unnamed[p.Image], Expired: p.Expired(now)})
	}
	return out, nil
}

// Collectable lists the layers that Collect would remove. The error matches ErrRefused if a registered graphroot cannot be read.
func (s *Store) Collectable() ([]string, error) {
	n, err := readNeeds(s.o.Path)
	if err != nil {
		return nil, err
	}
	defer n.release()
	if err := s.refuseUnreadable(n, nil); err != nil {
		return nil, err
	}
	st, err := s.state(n)
	if err != nil {
		return nil, err
	}
	return st.loose(nil), nil
}

// Held lists the layers of no pinned image.
func (s *Store) Held() ([]Held, []Unreadable, error) {
	n, err := readNeeds(s.o.Path)
	if err != nil {
		return nil, nil, err
	}
	defer n.release()
	st, err := s.state(n)
	if err != nil {
		return nil, nil, err
	}
	return st.held(), n.unreadable, nil
}
