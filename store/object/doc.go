// Package object encodes and decodes the objects of an OSTree repository: the
// header of a file, a directory's names (dirtree), its owner, mode and
// attributes (dirmeta), and the commit. It is pure: bytes in, bytes out, no
// files and no paths.
//
// OSTree names an object by the SHA-256 of its bytes, so equal content must
// always become equal bytes. Every value therefore has exactly one encoding
// here, GVariant's normal form with the further rules that OSTree has (sorted
// names, sorted attributes, big-endian integers):
//
//   - AppendBinary refuses a value that no repository should hold, such as
//     names out of order or a name with a slash;
//   - UnmarshalBinary accepts canonical bytes only. Bytes that it accepts are
//     what AppendBinary makes of the result.
//
// Both report a *FormatError. Nothing in this package panics on input, and
// decoded values share no memory with the bytes that they came from.
//
// What the bytes are is written down in docs/format.md, section "Objects".
package object
