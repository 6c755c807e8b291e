// Package pins keeps images where nothing that prunes, wipes or resets reaches them: in a pinned store, which is a complete store of
// containers/storage outside of graphroot, with an OSTree repository of its own whose objects are hardlinks to those of the main one.
//
// The driver shows the pinned store to every program as an additional image store. This package is what writes it: it copies an image
// there record by record, keeps the table of pins, and removes what is no longer pinned and what no registered graphroot needs.
//
// One process cannot have a store both to write and to read only, so the main store is opened without its pinned one here.
package pins
