package overlay

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A param is one option of overlayfs itself; without a value it is a flag.
type param struct {
	key, value string
	flag       bool
}

// maxValue is the longest value that fsconfig takes, in bytes.
const maxValue = 255

// attributes are the options of the mount, not of overlayfs, in the forms of fsmount and of mount(2).
type attributes struct {
	mount int      // MOUNT_ATTR_*
	flags uintptr  // MS_*
	super []string // flags of the superblock by name
}

// An attribute is one option that mount(8) knows for every filesystem.
type attribute struct {
	mount int
	flag  uintptr
	super string
	clear bool
}

var readOnlyAttribute = attribute{mount: unix.MOUNT_ATTR_RDONLY, flag: unix.MS_RDONLY}

var knownAttributes = map[string]attribute{
	"defaults":    {},
	"rw":          {},
	"ro":          readOnlyAttribute,
	"nosuid":      {mount: unix.MOUNT_ATTR_NOSUID, flag: unix.MS_NOSUID},
	"suid":        {mount: unix.MOUNT_ATTR_NOSUID, flag: unix.MS_NOSUID, clear: true},
	"nodev":       {mount: unix.MOUNT_ATTR_NODEV, flag: unix.MS_NODEV},
	"dev":         {mount: unix.MOUNT_ATTR_NODEV, flag: unix.MS_NODEV, clear: true},
	"noexec":      {mount: unix.MOUNT_ATTR_NOEXEC, flag: unix.MS_NOEXEC},
	"exec":        {mount: unix.MOUNT_ATTR_NOEXEC, flag: unix.MS_NOEXEC, clear: true},
	"nodiratime":  {mount: unix.MOUNT_ATTR_NODIRATIME, flag: unix.MS_NODIRATIME},
	"diratime":    {mount: unix.MOUNT_ATTR_NODIRATIME, flag: unix.MS_NODIRATIME, clear: true},
	"nosymfollow": {mount: unix.MOUNT_ATTR_NOSYMFOLLOW, flag: unix.MS_NOSYMFOLLOW},
	"symfollow":   {mount: unix.MOUNT_ATTR_NOSYMFOLLOW, flag: unix.MS_NOSYMFOLLOW, clear: true},
	"sync":        {flag: unix.MS_SYNCHRONOUS, super: "sync"},
	"async":       {flag: unix.MS_SYNCHRONOUS, super: "async", clear: true},
	"dirsync":     {flag: unix.MS_DIRSYNC, super: "dirsync"},
	"lazytime":    {flag: unix.MS_LAZYTIME, super: "lazytime"},
	"nolazytime":  {flag: unix.MS_LAZYTIME, super: "nolazytime", clear: true},
	// Mandatory locks left Linux in 5.15; the words stay without effect, as in mount(8).
	"mand": {}, "nomand": {},
}

// The times are one field with three values.
const timeFlags = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

var timeAttributes = map[string]attribute{
	"atime":         {mount: unix.MOUNT_ATTR_RELATIME, flag: unix.MS_RELATIME},
	"relatime":      {mount: unix.MOUNT_ATTR_RELATIME, flag: unix.MS_RELATIME},
	"nostrictatime": {mount: unix.MOUNT_ATTR_RELATIME, flag: unix.MS_RELATIME},
	"noatime":       {mount: unix.MOUNT_ATTR_NOATIME, flag: unix.MS_NOATIME},
	"strictatime":   {mount: unix.MOUNT_ATTR_STRICTATIME, flag: unix.MS_STRICTATIME},
	"norelatime":    {mount: unix.MOUNT_ATTR_STRICTATIME, flag: unix.MS_STRICTATIME},
}

// otherOperations are words that mount(2) takes for another operation than making a mount.
var otherOperations = []string{
	"remount", "bind", "rbind", "move",
	"shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable",
}

// layerOptions are the options that fields of Mount stand for.
var layerOptions = []string{"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"}

func (a *attributes) set(o attribute) {
	if o.clear {
		a.mount &^= o.mount
		a.flags &^= o.flag
	} else {
		a.mount |= o.mount
		a.flags |= o.flag
	}
	if o.super != "" {
		a.super = append(a.super, o.super)
	}
}

func (a *attributes) setTime(o attribute) {
	a.mount = a.mount&^unix.MOUNT_ATTR__ATIME | o.mount
	a.flags = a.flags&^timeFlags | o.flag
}

// extra is what Mount.Extra asks for.
type extra struct {
	readOnly bool
	attrs    attributes
	params   []param
}

func parseExtra(options []string) (extra, error) {
	var e extra
	for _, option := range options {
		key, value, valued := strings.Cut(option, "=")
		known, isKnown := knownAttributes[option]
		times, isTime := timeAttributes[option]
		switch {
		case option == "":
		case isKnown:
			e.attrs.set(known)
			e.readOnly = e.readOnly || option == "ro"
		case isTime:
			e.attrs.setTime(times)
		case slices.Contains(otherOperations, key):
			return e, fmt.Errorf("mount option %q does not go with a new mount", option)
		case slices.Contains(layerOptions, key):
			return e, fmt.Errorf("mount option %q would change the layers", option)
		case strings.ContainsRune(option, 0):
			return e, fmt.Errorf("mount option %q contains a NUL", option)
		default:
			if strings.HasSuffix(key, "context") {
				value = strings.Trim(value, `"`)
			}
			e.params = append(e.params, param{key: key, value: value, flag: !valued})
		}
	}
	return e, nil
}

// complete returns all options of overlayfs itself: those that the package decides, unless extra names them, and extra's.
func (e *extra) complete(m *Mount, readOnly bool) ([]param, error) {
	named := func(key, value string) bool {
		return slices.ContainsFunc(e.params, func(p param) bool { return p.key == key && (value == "" || p.value == value) })
	}
	var params []param
	add := func(key, value string) {
		if !named(key, "") {
			params = append(params, param{key: key, value: value, flag: value == ""})
		}
	}
	if m.UserXattr {
		add("userxattr", "")
	}
	// metacopy=on needs redirects, and nfs_export=on the index: who asks for the one has asked for the other.
	if !named("nfs_export", "on") {
		add("index", "off")
	}
	add("nfs_export", "off")
	switch {
	case named("metacopy", "on"):
	case m.UserXattr || named("userxattr", ""):
		// "off" still follows redirects by default, and the kernel refuses that with userxattr.
		add("redirect_dir", "nofollow")
	default:
		add("redirect_dir", "off")
	}
	add("metacopy", "off")
	if m.Volatile && !readOnly {
		add("volatile", "")
	}
	if m.Label != "" {
		if strings.ContainsAny(m.Label, "\"\x00") {
			return nil, fmt.Errorf("label %q cannot be a mount option", m.Label)
		}
		add("context", m.Label)
	}
	params = append(params, e.params...)
	if readOnly {
		params = slices.DeleteFunc(params, func(p param) bool { return p.key == "volatile" })
	}
	for _, p := range params {
		if len(p.key) > maxValue || len(p.value) > maxValue {
			return nil, fmt.Errorf("set mount option %.40q: %w", p.key, errors.New("more than 255 bytes"))
		}
	}
	return params, nil
}

// text is the option as mount(2) takes it. Only a context can hold a comma, and it is quoted for that.
func (p param) text() string {
	switch {
	case p.flag:
		return p.key
	case strings.HasSuffix(p.key, "context"):
		return p.key + `="` + p.value + `"`
	}
	return p.key + "=" + p.value
}
