package pins

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.podman.io/storage"
)

// holderName names the empty layer that stands on a held one while its image is removed, since containers/storage removes an image's
// layers down to the first that has another child. A crash can leave it; the next removal takes it away.
const holderName = "ostree-storage/holder"

// Removed is what was removed from the pinned store and what stayed.
type Removed struct {
	Pins   []string     `json:"pins"`   // entries of the table
	Images []string     `json:"images"` // records; none if another pin has the image
	Layers []string     `json:"layers"`
	Held   []Held       `json:"held"`             // layers that stay because a registered graphroot needs them
	Broken []Unreadable `json:"broken,omitempty"` // graphroots that could not be asked, with force
}

// A Held is a layer of no pinned image that a registered graphroot needs.
type Held struct {
	Layer  string `json:"layer"`
	Parent string `json:"parent,omitempty"`
	By     []Need `json:"by"` // empty if nothing needs it any more
}

// Unpin removes a pin: by its name, else that of an image. The image goes with its last pin. It refuses with an *UnreadableError if a
// registered graphroot cannot be read, unless force is set.
func (s *Store) Unpin(what string, force bool) (*Removed, error) {
	t, err := readTable(s.o.Path)
	if err != nil {
		return nil, err
	}
	name, image, err := s.findPin(t, what)
	if err != nil {
		return nil, err
	}
	return s.unpin(t, map[string]string{name: image}, force)
}

// UnpinExpired removes every pin whose time is over.
func (s *Store) UnpinExpired(now time.Time, force bool) (*Removed, error) {
	t, err := readTable(s.o.Path)
	if err != nil {
		return nil, err
	}
	over := map[string]string{}
	for _, p := range t.Pins {
		if p.Expired(now) {
			over[p.Name] = p.Image
		}
	}
	return s.unpin(t, over, force)
}

// Collect removes what a crash left, and the held layers that nothing needs any more.
func (s *Store) Collect(force bool) (*Removed, error) { return s.remove(nil, force) }

// unpin takes entries out of the table, then the images that have none left. A crash between leaves an image without an entry: a pin.
func (s *Store) unpin(t *table, gone map[string]string, force bool) (*Removed, error) {
	left := *t
	left.Pins = slices.DeleteFunc(slices.Clone(t.Pins), func(p Pin) bool { _, ok := gone[p.Name]; return ok })
	var images []string
	for _, image := range gone {
		if len(left.of(image)) == 0 && !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	slices.Sort(images)
	if !force {
		if err := s.mayRemove(images); err != nil {
			return nil, err
		}
	}
	if len(left.Pins) != len(t.Pins) {
		if err := left.write(s.o.Path); err != nil {
			return nil, err
		}
	}
	out, err := s.remove(images, force)
	if out != nil {
		out.Pins = slices.Sorted(maps.Keys(gone))
	}
	return out, err
}

// findPin finds what to unpin: the pin's name, "" if it has no entry, and the image.
func (s *Store) findPin(t *table, what string) (name, image string, err error) {
	if at := t.find(what); at >= 0 {
		return what, t.Pins[at].Image, nil
	}
	i, err := findImage(s.own, what)
	if err != nil {
		return "", "", fmt.Errorf("no pin and no pinned image: %w", err)
	}
	switch names := t.of(i.ID); len(names) {
	case 0:
		return i.ID, i.ID, nil
	case 1:
		return names[0], i.ID, nil
	default:
		return "", "", fmt.Errorf("image %s has several pins, %s; name one of them: %w", short(i.ID), strings.Join(names, ", "), ErrRefused)
	}
}

// mayRemove refuses if a registered graphroot cannot be read.
func (s *Store) mayRemove(images []string) error {
	n, err := readNeeds(s.o.Path)
	if err != nil {
		return err
	}
	defer n.release()
	return s.refuseUnreadable(n, images)
}

func (s *Store) refuseUnreadable(n *needs, images []string) error {
	if len(n.unreadable) == 0 {
		return nil
	}
	state, err := s.state(n)
	if err != nil {
		return err
	}
	if loose := state.loose(images); len(loose) > 0 {
		return &UnreadableError{n.unreadable, loose}
	}
	return nil
}

// remove deletes images, and all layers that neither an image nor a registered graphroot needs.
func (s *Store) remove(images []string, force bool) (*Removed, error) {
	n, err := readNeeds(s.o.Path)
	if err != nil {
		return nil, err
	}
	defer n.release()
	if !force {
		if err := s.refuseUnreadable(n, images); err != nil {
			return nil, err
		}
	}
	before, err := s.state(n)
	if err != nil {
		return nil, err
	}
	// What a pin that was cut short left in the driver has no record.
	if err := s.own.GarbageCollect(); err != nil {
		return nil, fmt.Errorf("remove layers without a record: %w", err)
	}
	out := &Removed{Pins: []string{}, Images: []string{}, Layers: []string{}, Held: []Held{}, Broken: n.unreadable}
	for _, id := range images {
		err := s.removeImage(before, id)
		if errors.Is(err, storage.ErrImageUnknown) || errors.Is(err, storage.ErrNotAnImage) {
			continue // an entry whose image is gone
		}
		if err != nil {
			return out, fmt.Errorf("remove image %s: %w", short(id), err)
		}
		out.Images = append(out.Images, id)
	}
	after, err := s.state(n)
	if err != nil {
		return out, err
	}
	for _, id := range after.loose(nil) {
		if err := s.own.DeleteLayer(id); err != nil {
			return out, fmt.Errorf("remove layer %s: %w", short(id), err)
		}
	}
	if after, err = s.state(n); err != nil {
		return out, err
	}
	for id, l := range before.layers {
		if _, still := after.layers[id]; !still && !slices.Contains(l.Names, holderName) {
			out.Layers = append(out.Layers, id)
		}
	}
	slices.Sort(out.Layers)
	out.Held = after.held()
	return out, syncFS(s.o.Path)
}

// removeImage deletes an image and its layers down to the first that is needed.
func (s *Store) removeImage(state *state, id string) error {
	image, err := s.own.Image(id)
	if err != nil {
		return err
	}
	var holder *storage.Layer
	for l := image.TopLayer; l != ""; l = state.layers[l].Parent {
		if _, ok := state.layers[l]; !ok {
			break
		}
		if state.needed[l] {
			if holder, err = s.own.CreateLayer("", l, []string{holderName}, "", false, nil); err != nil {
				return fmt.Errorf("hold layer %s: %w", short(l), err)
			}
			break
		}
	}
	_, err = s.own.DeleteImage(id, true)
	if holder != nil {
		err = errors.Join(err, s.own.DeleteLayer(holder.ID))
	}
	return err
}
