package overlay

// MaxLowers is how many lower directories overlayfs takes in one mount.
const MaxLowers = 500

// A Mount says what to mount where. The zero value of a field asks for nothing.
type Mount struct {
	// Lowers are the lower directories, nearest first.
	Lowers []string
	// Upper takes what is written, Work is overlay's scratch directory on the same filesystem.
	// In a read-only mount Upper, if any, is the nearest lower, which IDMap leaves alone, and Work is not used.
	Upper, Work string
	// Target is the directory that the mount covers.
	Target string
	// ReadOnly mounts without an upper directory. "ro" in Extra does the same.
	ReadOnly bool
	// Volatile leaves out every sync of the upper filesystem, and clears the mark of an earlier volatile mount.
	Volatile bool
	// UserXattr keeps overlay's own attributes in user.overlay.* instead of trusted.overlay.*: right in a user namespace.
	UserXattr bool
	// Label is the SELinux context of every file of the mount, unquoted; "" is none.
	Label string
	// IDMap, if not nil, shows the owners of the lowers through this map.
	IDMap *IDMap
	// Empty is an empty directory on the lowers' filesystem. It is used where overlay wants one more lower than
	// there are: two in a read-only mount, one in another. Without it that is an empty tmpfs, and then the mount's
	// directories and files differ in st_dev.
	Empty string
	// Extra are mount options as mount(8) has them: "nodev", "metacopy=on". An option named here replaces the package's own.
	Extra []string
}

// Do makes the mount. The error names the step, the directory and what the kernel's own log said.
func (m *Mount) Do() error { panic("not written yet") }

// Unmount removes the mount at target, detaching it if it is busy. Where nothing is mounted there is nothing to do.
func Unmount(target string) error { panic("not written yet") }

// Mounted reports whether an overlay mount is at target. Where target does not exist, none is.
func Mounted(target string) (bool, error) { panic("not written yet") }
