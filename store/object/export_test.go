package object

// DecodeReasons are the reasons that decoding can have. Each needs a vector.
var DecodeReasons = []string{
	reasonTruncated, reasonTrailing, reasonOffset, reasonWidth, reasonArrayLength, reasonPadding, reasonNUL, reasonUTF8,
	reasonChecksum, reasonZeroChecksum, reasonName, reasonNameOrder, reasonBothLists, reasonMode, reasonDevice,
	reasonTarget, reasonFrame, reasonAttrName, reasonAttrOrder, reasonAttrEmpty, reasonKey, reasonRelated,
	reasonVariantType, reasonVariantValue, reasonDepth,
}
