// Package plugin registers the `ostree` graph driver with containers/storage. A program takes it with one blank import:
//
//	import _ "github.com/ostree-storage/ostree-storage/plugin"
//
// It translates types and errors between that module and package driver, and does nothing else. Directory legacy holds
// the same adapter for the module's older path, github.com/containers/storage; a test keeps the two alike.
package plugin
