package pins

import (
	"path/filepath"
	"slices"
)

// Going lists for each of the sets of images the layers of the pinned store at path that go when all pins of these images end, children
// before parents. It only reads, and is right as long as every registered graphroot can be read: else unpin refuses.
func Going(path string, sets ...[]string) ([][]string, error) {
	layers, err := readRecords(filepath.Join(path, driverName+"-layers", "layers.json"))
	if err != nil {
		return nil, err
	}
	records, err := readRecords(filepath.Join(path, driverName+"-images", "images.json"))
	if err != nil {
		return nil, err
	}
	n, err := readNeeds(path)
	if err != nil {
		return nil, err
	}
	n.release()
	parents := map[string]string{}
	for _, l := range layers {
		parents[l.ID] = l.Parent
	}
	chains := func(set map[string]bool, tops ...string) {
		for _, id := range tops {
			for _, ok := parents[id]; ok && !set[id]; _, ok = parents[id] {
				set[id] = true
				id = parents[id]
			}
		}
	}
	out := make([][]string, len(sets))
	for at, images := range sets {
		stay, leave := map[string]bool{}, map[string]bool{}
		for _, need := range n.list {
			chains(stay, need.Parent)
		}
		for _, i := range records {
			set := stay
			if slices.Contains(images, i.ID) {
				set = leave
			}
			chains(set, append([]string{i.Layer}, i.Mapped...)...)
		}
		for _, l := range slices.Backward(layers) {
			if leave[l.ID] && !stay[l.ID] {
				out[at] = append(out[at], l.ID)
			}
		}
	}
	return out, nil
}
