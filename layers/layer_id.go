package layers

import (
	"errors"
	"fmt"
	"strings"
)

// maxRef is the longest escaped id: a ref is a file name, and libostree adds to it.
const maxRef = 200

var errLayerID = errors.New("invalid layer id")

// checkLayerID refuses what cannot name a directory or a ref.
func checkLayerID(id string) error {
	if id == "" || strings.HasPrefix(id, ".") || strings.ContainsAny(id, "/\x00\n") || len(escapeRef(id)) > maxRef {
		return fmt.Errorf("%w %q", errLayerID, id)
	}
	return nil
}

// layerRef is the ref of a layer's commit.
func layerRef(id string) string { return "layer/" + escapeRef(id) }

// stagedRef is the ref of a commit that no layer has yet.
func stagedRef(stage string) string { return stagedRefs + "/" + stage }

const stagedRefs = "staged"

// escapeRef writes an id in the characters that a ref may have, so that it can be read back.
func escapeRef(id string) string {
	plain := 0
	for plain < len(id) && isPlain(id[plain]) {
		plain++
	}
	if plain == len(id) { // as nearly all are
		return id
	}
	var b strings.Builder
	for i := 0; i < len(id); i++ {
		c := id[i]
		switch {
		case isPlain(c), c == '-' && i > 0:
			b.WriteByte(c)
		case c == '_':
			b.WriteString("__")
		default:
			fmt.Fprintf(&b, "_%02X_", c)
		}
	}
	return b.String()
}

func isPlain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
