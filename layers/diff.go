package layers

import (
	"context"
	"io"
)

// An IDMap maps Size consecutive ids: ContainerID and those after it inside a container are HostID and those after it on disk.
type IDMap struct {
	ContainerID, HostID, Size int
}

// DiffOptions says what WriteDiff writes.
type DiffOptions struct {
	// Upper is the overlay upper directory (or any overlay-native layer directory) whose content becomes the tar.
	Upper string
	// Lowers are the overlay-native directories below it, nearest first. They decide which opaque directories are said to hide something.
	Lowers []string
	// UIDMaps and GIDMaps turn the owners on disk into those of the tar. With both empty, owners are taken as they are.
	UIDMaps, GIDMaps []IDMap
	// UserXattr says that Upper's overlay marks are `user.overlay.*`, as in a user namespace, and not `trusted.overlay.*`.
	UserXattr bool
	// AllXattrs writes every extended attribute except the SELinux label, with those of overlayfs unescaped.
	// Without it, the tar has what containers/storage writes: user.*, security.capability and security.ima.
	AllXattrs bool
	// Skipped, if set, is told of each entry that was left out, and why: it vanished during the walk or its owner has no mapping.
	Skipped func(path string, err error)
}

// WriteDiff writes the layer tar of an overlay upper directory: byte for byte the one that the overlay driver of
// containers/storage makes, so that a committed container gets the same DiffID under both drivers. Sockets are left out.
func WriteDiff(ctx context.Context, w io.Writer, o DiffOptions) error {
	panic("not written yet")
}

// TreeOptions says what WriteTree and WriteNaiveDiff write.
type TreeOptions struct {
	// UIDMaps and GIDMaps turn the owners on disk into those of the tar. With both empty, owners are taken as they are.
	UIDMaps, GIDMaps []IDMap
	// Skipped, if set, is told of each entry that was left out, and why.
	Skipped func(path string, err error)
}

// WriteTree writes a tar of a whole merged tree, as Diff does between a layer and nothing when the layer has a parent.
// dir is a mounted root: nothing in it is a whiteout.
func WriteTree(ctx context.Context, w io.Writer, dir string, o TreeOptions) error {
	panic("not written yet")
}

// WriteNaiveDiff writes the layer tar of the changes that NaiveChanges found in newDir: added and modified entries as
// they are, and a whiteout for each deletion.
func WriteNaiveDiff(ctx context.Context, w io.Writer, newDir string, changes []Change, o TreeOptions) error {
	panic("not written yet")
}
