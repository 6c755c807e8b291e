package layers

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// rawPrefix begins the tree name of an entry whose name a tree cannot hold.
const rawPrefix = ".oci-raw."

// maxName is the longest name of an entry in bytes.
const maxName = 255

// treeName returns the name that an entry has in a dirtree: its own where that is UTF-8 and means nothing else. raw is the
// name in the layer tar, ".wh." included if the entry is a whiteout.
func treeName(raw string, whiteout bool) (name string, escaped bool) {
	if needsEscape(raw, whiteout) {
		sum := sha256.Sum256([]byte(raw))
		return rawPrefix + hex.EncodeToString(sum[:]), true
	}
	return raw, false
}

func needsEscape(raw string, whiteout bool) bool {
	return strings.HasPrefix(raw, rawPrefix) || !whiteout && strings.HasPrefix(raw, whiteoutPrefix) ||
		len(raw) > maxName || !utf8.ValidString(raw)
}

// validTreeName reports whether a dirtree may hold the name.
func validTreeName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName &&
		!strings.ContainsAny(name, "/\x00") && utf8.ValidString(name)
}

// validRawName reports whether a directory on disk may hold the name.
func validRawName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName && !strings.ContainsAny(name, "/\x00")
}
