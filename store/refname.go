package store

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// maxRef is the length of the longest ref name, in bytes.
const maxRef = 2048

// checkRef refuses names that libostree would not take, or not find again.
func checkRef(name string) error {
	_, err := object.ParseChecksum(name)
	if err == nil {
		return fmt.Errorf("ref name %q is a checksum: %w", name, fs.ErrInvalid)
	}
	if len(name) > maxRef {
		return fmt.Errorf("ref name of %d bytes: %w", len(name), fs.ErrInvalid)
	}
	for part := range strings.SplitSeq(name, "/") {
		if !isFragment(part) {
			return fmt.Errorf("ref name %q: %w", name, fs.ErrInvalid)
		}
	}
	return nil
}

// isFragment tells if s may stand between the slashes of a ref: ASCII letters, digits and '_', then '-' and '.' too.
func isFragment(s string) bool {
	if s == "" || len(s) > 255 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !word && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
