// Package driver is the behaviour of the `ostree` graph driver: layers are created, filled from tars, mounted, compared
// and removed, over a layers.Catalog for what is stored and internal/overlay for what is mounted.
//
// It names neither of the two modules that containers/storage has lived in: package plugin, and its twin for the older
// module, register a Driver with their module and translate types and errors, and nothing else.
package driver
