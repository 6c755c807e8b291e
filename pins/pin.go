package pins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/internal/graphroots"
)

// A Request says what to pin, and why.
type Request struct {
	Image   string // as findImage looks it up
	Name    string // of the pin; "" is the image's first name, or its ID
	Reason  string
	Expires *time.Time
	Replace string // the pin whose image is to be replaced; its name stays
}

// Pinned is what Pin did.
type Pinned struct {
	Pin      Pin      `json:"pin"`
	Names    []string `json:"names"`
	Layers   int      `json:"layers"`
	Sharing  Sharing  `json:"sharing"`
	Replaced *Removed `json:"replaced,omitempty"`
}

// Pin copies an image to the pinned store and writes it into the table of pins. When it returns, that is durable. A crash before leaves
// what was pinned before as it was, and perhaps layers or an image without an entry, which counts as a pin named by its ID.
func (s *Store) Pin(ctx context.Context, r Request) (*Pinned, error) {
	t, err := readTable(s.o.Path)
	if err != nil {
		return nil, err
	}
	if r.Replace != "" && t.find(r.Replace) < 0 {
		return nil, fmt.Errorf("there is no pin %q to replace: %w", r.Replace, ErrUnknown)
	}
	image, main, err := s.source(r.Image)
	if err != nil {
		return nil, err
	}
	entry, err := newEntry(t, r, image)
	if err != nil {
		return nil, err
	}
	if err := s.register(); err != nil {
		return nil, err
	}
	if main != nil {
		if err := s.copyImage(ctx, main, image); err != nil {
			return nil, fmt.Errorf("pin image %s: %w", short(image.ID), err)
		}
		// A name moves to the image that was pinned last, as it does when an image is pulled.
		if err := s.name(image); err != nil {
			return nil, fmt.Errorf("name image %s: %w", short(image.ID), err)
		}
	}
	if err := syncFS(s.o.Path); err != nil {
		return nil, err
	}
	var old string
	if at := t.find(entry.Name); at >= 0 {
		old = t.Pins[at].Image
		t.Pins[at] = entry
	} else {
		t.Pins = append(t.Pins, entry)
	}
	if err := t.write(s.o.Path); err != nil {
		return nil, err
	}
	return s.pinned(t, entry, old, image)
}

// name gives an image the names that it has in the main store.
func (s *Store) name(image *storage.Image) error {
	own, err := s.own.Image(image.ID)
	if err != nil {
		return err
	}
	for _, name := range image.Names {
		if !slices.Contains(own.Names, name) {
			return s.own.AddNames(image.ID, image.Names)
		}
	}
	return nil
}

// pinned finishes a pin: what it replaced is removed, unless another pin has it.
func (s *Store) pinned(t *table, entry Pin, old string, image *storage.Image) (*Pinned, error) {
	out := &Pinned{Pin: entry, Names: image.Names}
	var err error
	if out.Sharing, err = sharingOf(s.o.Main.GraphRoot, s.o.Path); err != nil {
		return nil, err
	}
	ids, err := s.chainOf(image.TopLayer)
	if err != nil {
		return nil, err
	}
	out.Layers = len(ids)
	if old != "" && old != entry.Image && len(t.of(old)) == 0 {
		if out.Replaced, err = s.remove([]string{old}, false); err != nil {
			return out, fmt.Errorf("image %s is pinned as %q; remove the one before: %w", short(image.ID), entry.Name, err)
		}
	}
	return out, nil
}

// source finds the image to pin, and the store to copy it from: nil if the pinned store alone has it.
func (s *Store) source(what string) (*storage.Image, storage.Store, error) {
	main, err := s.mainStore()
	if err != nil {
		return nil, nil, err
	}
	image, err := findImage(main, what)
	if err == nil {
		return image, main, nil
	}
	if !errors.Is(err, ErrUnknown) {
		return nil, nil, err
	}
	if image, err := findImage(s.own, what); err == nil {
		return image, nil, nil
	}
	return nil, nil, err
}

// newEntry makes the table's entry for a request.
func newEntry(t *table, r Request, image *storage.Image) (Pin, error) {
	e := Pin{Name: r.Name, Image: image.ID, Reason: r.Reason, Since: time.Now().UTC().Truncate(time.Second), Expires: r.Expires}
	if r.Replace != "" {
		old := t.Pins[t.find(r.Replace)]
		e.Name = r.Replace
		if e.Reason == "" {
			e.Reason = old.Reason
		}
		if e.Expires == nil {
			e.Expires = old.Expires
		}
		return e, nil
	}
	if e.Name == "" {
		e.Name = image.ID
		if len(image.Names) > 0 {
			e.Name = image.Names[0]
		}
	}
	if strings.ContainsFunc(e.Name, func(r rune) bool { return r < ' ' }) {
		return Pin{}, fmt.Errorf("the name %q of a pin has control characters: %w", e.Name, ErrRefused)
	}
	at := t.find(e.Name)
	if at < 0 {
		return e, nil
	}
	old := t.Pins[at]
	if old.Image != image.ID {
		return Pin{}, fmt.Errorf("the pin %q is there and keeps image %s: %w", e.Name, short(old.Image), ErrRefused)
	}
	e.Since = old.Since
	if e.Reason == "" {
		e.Reason = old.Reason
	}
	if e.Expires == nil {
		e.Expires = old.Expires
	}
	return e, nil
}

// register notes that the main graphroot uses this store.
func (s *Store) register() error {
	for _, root := range []string{s.o.Main.GraphRoot, s.o.Main.ImageStore} {
		if root == "" {
			continue
		}
		if err := graphroots.Register(s.o.Path, root, s.o.Main.RunRoot); err != nil {
			return fmt.Errorf("register graphroot %s: %w", root, err)
		}
	}
	return nil
}

// chainOf returns a layer of the pinned store and its ancestors, nearest first.
func (s *Store) chainOf(top string) ([]string, error) {
	var ids []string
	for id := top; id != ""; {
		l, err := s.own.Layer(id)
		if err != nil {
			return ids, fmt.Errorf("layer %s of the pinned store: %w: %w", short(id), ErrDamaged, err)
		}
		if slices.Contains(ids, l.ID) {
			return ids, fmt.Errorf("layer %s is its own ancestor: %w", short(id), ErrDamaged)
		}
		ids = append(ids, l.ID)
		id = l.Parent
	}
	return ids, nil
}
