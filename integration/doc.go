// Package integration holds the tests that drive real programs on the driver: podman, buildah, skopeo, the
// containers-storage commands and ostree. It has no code of its own; its tests skip, and say so, where a program or a
// fixture image was not made (`make programs` makes them).
package integration
