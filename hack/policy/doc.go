// Package policy holds, as tests, what the sources must look like: which room may
// import which (docs/design.md, "Rooms"), how long files and functions may be,
// and what has to be documented. It parses the sources itself, in process, so
// that no cached answer of another tool can hide a breach.
package policy
