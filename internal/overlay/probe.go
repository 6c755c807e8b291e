package overlay

// Features is what the kernel's overlayfs can do on one filesystem.
type Features struct {
	LowerFD     bool // lower directories one by one through file descriptors (`lowerdir+`)
	Upper       bool // the filesystem can hold an upper directory
	IDMap       bool // idmapped lowers
	UserXattr   bool // `userxattr`
	Volatile    bool // `volatile`
	EscapeXattr bool // `<prefix>overlay.overlay.X` on a lower is seen as `<prefix>overlay.X`
	DataOnly    bool // data-only lowers
}

// Probe tries every feature on the filesystem of dir, in which it makes and removes a directory of its own.
// The error is for a dir that nothing can be tried on; Prober tells why a feature is missing.
func Probe(dir string) (Features, error) { panic("not written yet") }
