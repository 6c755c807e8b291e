package driver

import (
	"io"
	"os"

	"github.com/ostree-storage/ostree-storage/layers"
)

// Name is the name under which the driver is registered, and that of its directory in a graphroot.
const Name = "ostree"

// An IDMap maps Size consecutive ids: ContainerID and those after it inside a container are HostID and those after it on disk.
type IDMap = layers.IDMap

// Mappings are the user and group mappings of a layer or container. The zero value maps nothing.
type Mappings struct {
	UIDs, GIDs []IDMap
}

// Empty reports whether m maps nothing.
func (m Mappings) Empty() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// CreateOptions are the optional arguments of Create and CreateReadWrite.
type CreateOptions struct {
	MountLabel string            // SELinux label of the container; unused: it becomes `context=` of each mount
	StorageOpt map[string]string // `size` and `inodes` of a writable layer
	Mappings   Mappings          // who root is on disk
}

// MountOptions are the arguments of Get.
type MountOptions struct {
	Label    string   // SELinux mount label, becomes `context=`
	Mappings Mappings // user namespace of the container, applied by idmapped mounts
	Unmapped bool     // the files have the owners of Mappings on disk already: no idmapped mounts
	Options  []string // mount options; "ro" mounts without an upper directory
	Volatile bool     // nothing written needs to survive a crash
}

// ApplyOptions are the arguments of ApplyDiff and StageDiff.
type ApplyOptions struct {
	Diff              io.Reader    // an uncompressed layer tar; read to its end, padding included
	Mappings          Mappings     // turn the tar's owners into those on disk
	MountLabel        string       // accepted, and without effect: see the store label
	IgnoreChownErrors bool         // owners that cannot be set become ours
	ForceMask         *os.FileMode // refused: it needs a mount program
}

// A ChangeKind says what happened to a path.
type ChangeKind = layers.ChangeKind

// A Change is one path that differs between two layers.
type Change = layers.Change

// Usage is what a writable directory takes.
type Usage = layers.Usage

// A SyncMode says whether a layer is on disk when the call that made it returns.
type SyncMode int

// The sync modes.
const (
	SyncNone       SyncMode = iota // left to the kernel
	SyncFilesystem                 // a syncfs before success is reported
)

// A TarWriter writes the tar of an upper directory without lowers as the host program's own overlay driver does. Diff writes as
// it does, so that a committed container has the same DiffID under both drivers; the driver learns from it how that is, and
// it is not used for layers. nil is containers/storage v1.64.
type TarWriter func(upper string, maps []IDMap) (io.ReadCloser, error)

// Options are what a host program gives a new driver.
type Options struct {
	Root       string   // the graphroot
	RunRoot    string   // for what must not outlive a boot
	ImageStore string   // if not empty, where read-only layers go instead of Root
	Settings   []string // `ostree.key=value`, `.key=value`, `key=value`; see ParseSettings
	Rootless   bool     // the user is not root, whatever the user namespace says
	WriteTar   TarWriter
}
