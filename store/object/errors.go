package object

import "fmt"

// A FormatError says why bytes are no object, or why a value cannot become one.
type FormatError struct {
	Type   Type   // what was decoded or encoded; 0 for a checksum, a name or a variant on its own
	Offset int    // where in the input, in bytes; -1 when encoding
	Reason string // one of the fixed phrases of this package
}

func (e *FormatError) Error() string {
	what := "checksum or name"
	if e.Type != 0 {
		what = e.Type.String()
	}
	if e.Offset < 0 {
		return fmt.Sprintf("invalid %s: %s", what, e.Reason)
	}
	return fmt.Sprintf("invalid %s at byte %d: %s", what, e.Offset, e.Reason)
}

// The reasons of a FormatError. Vectors in testdata name them, so they are part
// of what the tests hold.
const (
	reasonTruncated    = "truncated"
	reasonTrailing     = "trailing bytes"
	reasonOffset       = "framing offset out of order or range"
	reasonWidth        = "framing offsets wider than needed"
	reasonArrayLength  = "framing offsets do not fill the array"
	reasonPadding      = "padding is not zero"
	reasonNUL          = "string without NUL at its end, or with another in it"
	reasonUTF8         = "string is not UTF-8"
	reasonChecksum     = "checksum is not 32 bytes"
	reasonZeroChecksum = "checksum is zero"
	reasonName         = "name is empty, '.', '..' or has a slash"
	reasonNameOrder    = "names are not sorted and unique"
	reasonBothLists    = "name is both a file and a directory"
	reasonMode         = "mode has an unknown type or unknown bits"
	reasonDevice       = "device number is not zero"
	reasonTarget       = "target without symlink or symlink without target"
	reasonFrame        = "frame length is wrong"
	reasonAttrName     = "attribute name is empty or has a NUL"
	reasonAttrOrder    = "attributes are not sorted and unique"
	reasonAttrEmpty    = "attribute of a file has no value"
	reasonKey          = "metadata key is empty"
	reasonRelated      = "list of related objects is not empty"
	reasonVariantType  = "variant has no valid type"
	reasonVariantValue = "variant is not in normal form"
	reasonDepth        = "variants are nested too deeply"
	reasonHex          = "not 64 lowercase hex digits"
	reasonTypeName     = "unknown object type"
	reasonWrongType    = "variant is of another type"
)
