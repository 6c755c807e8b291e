package pins

import (
	"path/filepath"
)

// Going lists for each of the sets of images the layers of the pinned store at path that go when all pins of these images end, children
// before parents. It only reads, and is right as long as every registered graphroot can be read: else unpin refuses.
func Going(path string, sets ...[]string) ([][]string, error) {
	layers, _, err := LayerRecords(filepath.Join(path, driverName+"-layers"))
	if err != nil {
		return nil, err
	}
	images, err := readImages(filepath.Join(path, driverName+"-images", "images.json"))
	if err != nil {
		return nil, err
	}
	n, err := readNeeds(path)
	if err != nil {
		return nil, err
	}
	n.release()
	f := newForest(layers)
	for _, need := range n.list {
		f.need(need.Parent)
	}
	tops := map[string][]string{}
	for _, i := range images {
		for _, top := range append([]string{i.Layer}, i.Mapped...) {
			f.need(top)
			tops[i.ID] = append(tops[i.ID], top)
		}
	}
	out := make([][]string, len(sets))
	for at, set := range sets {
		seen := make(map[string]bool, len(set))
		var less []string
		for _, id := range set {
			if !seen[id] {
				seen[id] = true
				less = append(less, tops[id]...)
			}
		}
		out[at] = f.without(less)
	}
	return out, nil
}

// A forest is layers and how often each is needed: by what stands on it, and by layers above it that are needed.
type forest struct {
	layers  []LayerRecord
	at      map[string]int32
	parents []int32 // -1 for none
	needs   []int32
	less    []int32 // what falls away in one question; zero between two
}

func newForest(layers []LayerRecord) *forest {
	f := &forest{
		layers: layers, at: make(map[string]int32, len(layers)),
		parents: make([]int32, len(layers)), needs: make([]int32, len(layers)), less: make([]int32, len(layers)),
	}
	for i, l := range layers {
		f.at[l.ID] = int32(i)
	}
	for i, l := range layers {
		f.parents[i] = f.find(l.Parent)
	}
	return f
}

func (f *forest) find(id string) int32 {
	if n, ok := f.at[id]; ok {
		return n
	}
	return -1
}

// need says that something stands on a layer.
func (f *forest) need(id string) {
	for n := f.find(id); n >= 0; n = f.parents[n] {
		if f.needs[n]++; f.needs[n] > 1 {
			return // its parent knows
		}
	}
}

// without lists the layers that nothing needs once some of what was said falls away.
func (f *forest) without(needs []string) (going []string) {
	var met []int32
	for _, id := range needs {
		for n := f.find(id); n >= 0; n = f.parents[n] {
			met = append(met, n)
			if f.less[n]++; f.less[n] < f.needs[n] {
				break
			}
			going = append(going, f.layers[n].ID)
		}
	}
	for _, n := range met {
		f.less[n] = 0
	}
	return going
}
