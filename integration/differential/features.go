package differential

import (
	"math/rand/v2"
	"strings"
)

// Features are the kinds of oddity that a generated chain may contain. Every
// chain draws its own set (swarm testing): with few features at a time, each of
// them meets itself often, and a failing chain is easy to read.
type Features uint32

// The features.
const (
	EqualFiles    Features = 1 << iota // few bodies, owners, modes and times, so that most files are equal to others
	Hardlinks                          // of files, symlinks, devices and fifos
	Farms                              // many links of one file, as busybox has
	OddLinks                           // hardlink entries whose metadata differ from their target's
	Symlinks                           // with long, dangling, absolute and odd targets
	Specials                           // devices and fifos
	ZeroDevices                        // character devices 0:0
	OddNames                           // not UTF-8, 255 bytes, control characters, ":" and ","
	DeepPaths                          // up to what the oracle can extract
	OddTimes                           // before 1970, far future, nanoseconds
	OddModes                           // setuid, setgid, sticky, no permissions
	UserXattrs                         // user attributes, empty ones too
	TrustedXattrs                      // trusted and security attributes
	Capabilities                       // security.capability
	ACLs                               // access ACLs, and default ACLs of directories
	OverlayXattrs                      // user.overlay.* and inert trusted.overlay.* attributes
	Whiteouts                          // of present and absent names, and re-creation in the same layer
	Opaque                             // opaque directories, the root too
	Replacements                       // directories, files and symlinks that replace each other
	Implied                            // parents that the tar does not list
	Duplicates                         // the same name more than once in a tar
	Through                            // entries below symlinks to directories
	Spelling                           // "./", "/", "//", "..", trailing "/" in names
	GNUHeaders                         // headers in GNU format
	LargeFiles                         // with holes, and of more than one buffer
	Shuffled                           // entries in no sensible order
	Repeats                            // whole layers again
	Unusual                            // what the oracle may refuse, or AUFS leftovers
	featureEnd
)

var featureNames = []string{
	"equal-files", "hardlinks", "farms", "odd-links", "symlinks", "specials", "zero-devices", "odd-names",
	"deep-paths", "odd-times", "odd-modes", "user-xattrs", "trusted-xattrs", "capabilities", "acls",
	"overlay-xattrs", "whiteouts", "opaque", "replacements", "implied", "duplicates", "through", "spelling",
	"gnu-headers", "large-files", "shuffled", "repeats", "unusual",
}

// Has reports whether all of g are in f.
func (f Features) Has(g Features) bool { return f&g == g }

// String lists the features by name.
func (f Features) String() string {
	var list []string
	for i, name := range featureNames {
		if f&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return strings.Join(list, ",")
}

// swarm draws a set: each feature with a probability of its own for the chain.
func swarm(r *rand.Rand) Features {
	p := 0.15 + 0.5*r.Float64()
	var f Features
	for b := Features(1); b < featureEnd; b <<= 1 {
		if r.Float64() < p {
			f |= b
		}
	}
	if r.IntN(3) > 0 {
		f |= EqualFiles // what lanes are about
	}
	if r.IntN(8) > 0 {
		f &^= Unusual // most chains should be accepted
	}
	if r.IntN(4) > 0 {
		f &^= LargeFiles // slow
	}
	return f
}
