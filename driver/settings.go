package driver

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Settings are the driver's options, read and checked.
type Settings struct {
	PinnedStore  string   // a directory, "none", or "" for the default place
	SharedTimes  bool     // mtime=shared: one inode for equal files whatever their times
	SharedLinks  bool     // links=shared: no inodes of their own under etc and var
	Sync         SyncMode // sync=
	Label        string   // store_label=: security.selinux of every inode of a repository that is made now; "" is none
	LabelSet     bool     // store_label= was given
	ShareWith    []string // repositories to link known objects from
	ImageStores  []string // additional read-only stores
	MountOptions []string // mountopt=, added to every mount that has no options of its own
	Size         uint64   // bytes that a writable layer may take by default; 0 is no limit
	Inodes       uint64   // inodes that a writable layer may take by default; 0 is no limit

	IgnoreChownErrors bool

	Ignored []string // options that other drivers understand and this one leaves out, with the reason
}

// otherDrivers are the prefixes of options that are meant for another driver.
var otherDrivers = []string{"overlay", "overlay2", "vfs", "btrfs", "zfs", "aufs", "dm", "devicemapper", "windowsfilter"}

// A setting reads one option's value.
type setting func(s *Settings, value string) error

// settings is every option there is. Those that only containers/storage's other drivers act on are here because it forwards
// them to every driver, whoever they were meant for.
var settings = map[string]setting{
	"pinned_store":         setPinnedStore,
	"mtime":                oneOf("exact", func(s *Settings, b bool) { s.SharedTimes = b }, "shared"),
	"links":                oneOf("exact-etc", func(s *Settings, b bool) { s.SharedLinks = b }, "shared"),
	"sync":                 setSync,
	"store_label":          setLabel,
	"share_with":           setShareWith,
	"imagestore":           setImageStores,
	"additionalimagestore": setImageStores,
	"mountopt":             setMountOptions,
	"size":                 setSize,
	"inodes":               setInodes,
	"ignore_chown_errors":  setIgnoreChownErrors,
	"force_mask":           refuseForceMask,
	"skip_mount_home":      setSkipMountHome,
	"mount_program":        ignore("mount_program", "the kernel's overlayfs is used"),
	"additionallayerstore": ignore("additionallayerstore", "layers come from image stores alone"),
	"override_kernel_check": ignore("override_kernel_check",
		"there is no such check"),
}

// ParseSettings reads options spelled `ostree.key=value`, `.key=value` or `key=value`: containers/storage spells them
// differently from version to version. Options with another driver's prefix are passed over. A later option replaces an
// earlier one, except that the stores of several `imagestore` add up.
func ParseSettings(options []string) (Settings, error) {
	s := Settings{Sync: SyncFilesystem}
	for _, o := range options {
		name, value, ok := strings.Cut(o, "=")
		if !ok {
			return Settings{}, fmt.Errorf("option %q: %w: it is not key=value", o, ErrOption)
		}
		key, mine := optionKey(name)
		if !mine {
			continue
		}
		if err := s.set(key, value); err != nil {
			return Settings{}, fmt.Errorf("option %q: %w", o, err)
		}
	}
	return s, nil
}

func (s *Settings) set(key, value string) error {
	set := settings[key]
	if set == nil {
		return fmt.Errorf("%w: the ostree driver has no %q, it has %s", ErrOption, key, strings.Join(knownKeys(), ", "))
	}
	return set(s, value)
}

// optionKey strips the prefix of an option's name. It reports false for an option of another driver.
func optionKey(name string) (string, bool) {
	prefix, key, dotted := strings.Cut(strings.ToLower(strings.TrimSpace(name)), ".")
	switch {
	case !dotted:
		return prefix, true
	case prefix == "" || prefix == Name:
		return key, true
	case slices.Contains(otherDrivers, prefix):
		return "", false
	}
	return prefix + "." + key, true
}

func knownKeys() []string {
	keys := make([]string, 0, len(settings))
	for k := range settings {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func wrongValue(value, want string) error {
	return fmt.Errorf("%w: the value %q is not %s", ErrOption, value, want)
}

// oneOf reads an option that is either off or on, under names of its own.
func oneOf(off string, set func(*Settings, bool), on string) setting {
	return func(s *Settings, value string) error {
		if value != off && value != on {
			return wrongValue(value, off+" or "+on)
		}
		set(s, value == on)
		return nil
	}
}

func ignore(key, reason string) setting {
	return func(s *Settings, value string) error {
		if value != "" {
			s.Ignored = append(s.Ignored, key+"="+value+" ("+reason+")")
		}
		return nil
	}
}

func setPinnedStore(s *Settings, value string) error {
	if value != pinnedNone && !filepath.IsAbs(value) {
		return wrongValue(value, `an absolute path or "none"`)
	}
	s.PinnedStore = filepath.Clean(value)
	return nil
}

func setSync(s *Settings, value string) error {
	switch value {
	case "filesystem":
		s.Sync = SyncFilesystem
	case "none":
		s.Sync = SyncNone
	default:
		return wrongValue(value, "filesystem or none")
	}
	return nil
}

func setLabel(s *Settings, value string) error {
	switch {
	case value == "none":
		s.Label = ""
	case strings.Count(value, ":") < 2 || strings.ContainsAny(value, " \x00\n"):
		return wrongValue(value, `an SELinux context such as system_u:object_r:container_ro_file_t:s0, or "none"`)
	default:
		s.Label = value
	}
	s.LabelSet = true
	return nil
}

func setShareWith(s *Settings, value string) error {
	s.ShareWith = nil
	for _, p := range splitList(value, ":") {
		if !filepath.IsAbs(p) {
			return wrongValue(p, "an absolute path")
		}
		s.ShareWith = append(s.ShareWith, filepath.Clean(p))
	}
	return nil
}

func setImageStores(s *Settings, value string) error {
	for _, p := range splitList(value, ",") {
		if !filepath.IsAbs(p) {
			return wrongValue(p, "an absolute path")
		}
		if p = filepath.Clean(p); !slices.Contains(s.ImageStores, p) {
			s.ImageStores = append(s.ImageStores, p)
		}
	}
	return nil
}

func splitList(value, separator string) []string {
	var out []string
	for _, p := range strings.Split(value, separator) {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

// ours are overlay's options that decide whether a layer's content is what it says it is; a mount has them as the driver sets them.
var ours = []string{"index", "redirect_dir", "nfs_export", "lowerdir", "upperdir", "workdir", "lowerdir+", "datadir+", "userxattr"}

func setMountOptions(s *Settings, value string) error {
	options := splitList(value, ",")
	kept, ignored, err := filterMountOptions(options)
	if err != nil {
		return err
	}
	s.MountOptions = kept
	for _, o := range ignored {
		s.Ignored = append(s.Ignored, "mountopt "+o+" (a layer's changes would not be complete)")
	}
	return nil
}

// filterMountOptions leaves out metacopy, which stock configurations of the overlay driver have, and refuses what would
// change what a mount is made of.
func filterMountOptions(options []string) (kept, ignored []string, err error) {
	for _, o := range options {
		key, _, _ := strings.Cut(o, "=")
		switch {
		case key == "metacopy":
			if o != "metacopy=off" {
				ignored = append(ignored, o)
			}
		case slices.Contains(ours, key):
			return nil, nil, fmt.Errorf("%w: mount option %q is the driver's own", ErrOption, o)
		default:
			kept = append(kept, o)
		}
	}
	return kept, ignored, nil
}

func setSize(s *Settings, value string) (err error) {
	s.Size, err = parseSize(value)
	return err
}

func setInodes(s *Settings, value string) (err error) {
	s.Inodes, err = parseCount(value)
	return err
}

func setIgnoreChownErrors(s *Settings, value string) (err error) {
	s.IgnoreChownErrors, err = parseBool(value)
	return err
}

func setSkipMountHome(_ *Settings, value string) error {
	// Either value is what happens: the home is never mounted over itself, or links into it would fail.
	_, err := parseBool(value)
	return err
}

func refuseForceMask(_ *Settings, value string) error {
	if value == "" {
		return nil
	}
	return fmt.Errorf("%w: it needs a mount program that shows the real modes, and this driver has none", ErrOption)
}

func parseBool(value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, wrongValue(value, "true or false")
	}
	return b, nil
}

func parseCount(value string) (uint64, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, wrongValue(value, "a number")
	}
	return n, nil
}

// parseSize reads bytes as containers/storage does: a number, perhaps with a fraction, and a binary unit: "10g", "1.5MiB", "4096".
func parseSize(value string) (uint64, error) {
	const want = "a size such as 10g or 512m"
	number := strings.TrimRight(strings.ToLower(strings.TrimSpace(value)), "ib")
	shift := 0
	if number != "" {
		if i := strings.IndexByte("kmgtp", number[len(number)-1]); i >= 0 {
			shift = 10 * (i + 1)
			number = strings.TrimSpace(number[:len(number)-1])
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*float64(uint64(1)<<shift) >= 1<<63 {
		return 0, wrongValue(value, want)
	}
	return uint64(f * float64(uint64(1)<<shift)), nil
}
