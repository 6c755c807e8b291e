package pins

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnknown is for a pin or an image that is not there.
	ErrUnknown = errors.New("not known")
	// ErrRefused is for what may not be done, as opposed to what could not.
	ErrRefused = errors.New("refused")
	// ErrDamaged is for an image whose layers or records are not what their digests say.
	ErrDamaged = errors.New("damaged")
	// ErrBusy is for a pinned store that another process has open to change it.
	ErrBusy = errors.New("busy")
	// ErrReadOnly is for a pinned store that this user or this filesystem lets only be read.
	ErrReadOnly = errors.New("can only be read")
	// ErrNoStore is for a pinned store that does not exist.
	ErrNoStore = errors.New("there is no pinned store")
)

// An UnreadableError says that registered graphroots cannot be read, so that nobody knows which pinned layers they need.
type UnreadableError struct {
	Roots  []Unreadable
	Layers []string // of the pinned store, which would be removed
}

// An Unreadable is a registered graphroot that cannot be read.
type Unreadable struct {
	Graphroot string `json:"graphroot"`
	Reason    string `json:"reason"`
}

func (e *UnreadableError) Error() string {
	var roots []string
	for _, r := range e.Roots {
		roots = append(roots, r.Graphroot+" ("+r.Reason+")")
	}
	return fmt.Sprintf("registered graphroots cannot be read: %s; they may need %d layers that would be removed (%s)",
		strings.Join(roots, ", "), len(e.Layers), strings.Join(shortAll(e.Layers), " "))
}

// Is makes the error one of ErrRefused.
func (e *UnreadableError) Is(target error) bool { return target == ErrRefused }

// short is what people type of an id.
func short(id string) string { return id[:min(12, len(id))] }

func shortAll(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = short(id)
	}
	return out
}
