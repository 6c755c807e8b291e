package layers

// A ChangeKind says what happened to a path between two layers.
type ChangeKind int

// The kinds of changes, numbered as containers/storage does.
const (
	ChangeModify ChangeKind = iota
	ChangeAdd
	ChangeDelete
)

// String returns "C", "A" or "D".
func (k ChangeKind) String() string {
	switch k {
	case ChangeModify:
		return "C"
	case ChangeAdd:
		return "A"
	case ChangeDelete:
		return "D"
	}
	return ""
}

// A Change is one path that differs from the layers below. Path is absolute within the root.
type Change struct {
	Path string
	Kind ChangeKind
}

// String returns the change as `podman diff` prints it: "C /etc".
func (c Change) String() string { return c.Kind.String() + " " + c.Path }

// ChangesOptions says how Changes reads its directories.
type ChangesOptions struct {
	// UserXattr says that overlay's marks are `user.overlay.*`, as in a user namespace, and not `trusted.overlay.*`.
	UserXattr bool
}

// Changes lists what an overlay upper directory changes over lowers, the overlay-native directories below it, nearest first.
// Paths, kinds and order are those of the overlay driver of containers/storage.
func Changes(upper string, lowers []string, o ChangesOptions) ([]Change, error) {
	panic("not written yet")
}

// NaiveOptions says how owners in the two trees of NaiveChanges are compared.
type NaiveOptions struct {
	NewUIDs, NewGIDs []IDMap // mappings of newDir's owners
	OldUIDs, OldGIDs []IDMap // mappings of oldDir's owners
}

// NaiveChanges compares two merged trees, entry by entry, as containers/storage does for two layers that are not parent
// and child. With oldDir "", all of newDir is new. The list is sorted by directory: a directory comes before its content.
func NaiveChanges(newDir, oldDir string, o NaiveOptions) ([]Change, error) {
	panic("not written yet")
}
