package object

// A shape is a GVariant type, as far as the layout of its values goes.
type shape struct {
	kind     byte     // the type's first byte; '(' for dictionary entries too
	align    int      // 1, 2, 4 or 8
	size     int      // in bytes, 0 if it varies
	members  []*shape // of a tuple; the element of an array or maybe
	anyBytes bool     // every run of size bytes is a value in normal form
}

// maxDepth is how deep containers may be nested; GLib has the same limit.
const maxDepth = 128

var basicShapes = map[byte]*shape{
	'y': {kind: 'y', align: 1, size: 1, anyBytes: true},
	'b': {kind: 'b', align: 1, size: 1},
	'n': {kind: 'n', align: 2, size: 2, anyBytes: true},
	'q': {kind: 'q', align: 2, size: 2, anyBytes: true},
	'i': {kind: 'i', align: 4, size: 4, anyBytes: true},
	'u': {kind: 'u', align: 4, size: 4, anyBytes: true},
	'h': {kind: 'h', align: 4, size: 4, anyBytes: true},
	'x': {kind: 'x', align: 8, size: 8, anyBytes: true},
	't': {kind: 't', align: 8, size: 8, anyBytes: true},
	'd': {kind: 'd', align: 8, size: 8, anyBytes: true},
	's': {kind: 's', align: 1},
	'o': {kind: 'o', align: 1},
	'g': {kind: 'g', align: 1},
}

var variantShape = &shape{kind: 'v', align: 8}

// parseShape returns the shape of the type that is all of s, or nil.
func parseShape(s string) *shape {
	t, n := nextShape(s, 0)
	if t == nil || n != len(s) {
		return nil
	}
	return t
}

// nextShape returns the shape of the one complete type that s begins with and
// that type's length, or nil.
func nextShape(s string, depth int) (*shape, int) {
	if s == "" || depth > maxDepth {
		return nil, 0
	}
	switch s[0] {
	case 'v':
		return variantShape, 1
	case 'a', 'm':
		element, n := nextShape(s[1:], depth+1)
		if element == nil {
			return nil, 0
		}
		return &shape{kind: s[0], align: element.align, members: []*shape{element}}, 1 + n
	case '(':
		return nextTuple(s, ')', depth)
	case '{':
		// A dictionary entry is a pair with a basic key.
		if len(s) < 2 || basicShapes[s[1]] == nil {
			return nil, 0
		}
		t, n := nextTuple(s, '}', depth)
		if t == nil || len(t.members) != 2 {
			return nil, 0
		}
		return t, n
	}
	if t := basicShapes[s[0]]; t != nil {
		return t, 1
	}
	return nil, 0
}

func nextTuple(s string, closing byte, depth int) (*shape, int) {
	t := &shape{kind: '(', align: 1, anyBytes: true}
	fixed := true
	for at := 1; at < len(s); {
		if s[at] == closing {
			t.finish(fixed)
			return t, at + 1
		}
		member, n := nextShape(s[at:], depth+1)
		if member == nil {
			return nil, 0
		}
		start := alignUp(t.size, member.align)
		t.anyBytes = t.anyBytes && member.anyBytes && start == t.size
		t.size = start + member.size
		t.align = max(t.align, member.align)
		fixed = fixed && member.size > 0
		t.members = append(t.members, member)
		at += n
	}
	return nil, 0
}

// finish settles the size of a tuple whose members are all known.
func (t *shape) finish(fixed bool) {
	switch end := alignUp(t.size, t.align); {
	case len(t.members) == 0:
		t.size, t.anyBytes = 1, false // the empty tuple is one zero byte
	case !fixed:
		t.size, t.anyBytes = 0, false
	default:
		t.anyBytes = t.anyBytes && end == t.size
		t.size = end
	}
}

// offsets returns how many members of the tuple have a framing offset: those of
// variable size, but never the last.
func (t *shape) offsets() (n int) {
	for i, m := range t.members {
		if m.size == 0 && i < len(t.members)-1 {
			n++
		}
	}
	return n
}
