// Package layers keeps container layers in an OSTree repository: it turns a layer tar into a commit and a hardlink
// checkout in one pass, remembers which layers exist and what each one's parents are, merges chains of layers, and checks
// a commit out again from the repository alone.
//
// A [Catalog] is one driver home: `repo/`, `layers/<id>/` and `version`. What a layer tar says and an OSTree tree cannot
// hold (times, hardlinks, devices, raw names) is in the commit's metadata; docs/format.md is the normative text.
//
// The other half of the package reads directories that are overlayfs layers: [Changes], [WriteDiff] and their kin.
package layers
