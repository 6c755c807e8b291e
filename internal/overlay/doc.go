// Package overlay makes, finds and removes overlayfs mounts, and probes what the kernel's overlayfs can do on a
// filesystem. It knows directories, options and id maps, and nothing of layers (docs/design.md, "A mount").
//
// A mount is built detached, layer by layer through file descriptors (fsopen, `lowerdir+`), and appears at its target
// in one step. Older kernels get the same mount through shorter names or through mount(2), without another process.
// The lowers of a mount with an id map are detached clones too, so nothing but the mount itself can be left behind.
package overlay
