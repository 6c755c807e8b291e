package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// filesystems names those that a graphroot is likely to be on.
var filesystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC:      "extfs",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.NFS_SUPER_MAGIC:       "nfs",
	unix.FUSE_SUPER_MAGIC:      "fuse",
	0x2fc12fc1:                 "zfs",
	0xca451a4e:                 "bcachefs",
}

func filesystemOf(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "unknown"
	}
	if name, ok := filesystems[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("0x%x", st.Type)
}

// Status describes the driver and what its filesystem can do, for people: `podman info` shows it.
func (d *Driver) Status() [][2]string {
	leave, err := d.enter()
	if err != nil {
		return [][2]string{{"Repository", err.Error()}}
	}
	defer leave()
	repo := d.stores.main.Repo()
	reflink, linkMax := "unknown", "unknown"
	if f, err := repo.Features(); err == nil {
		reflink = strconv.FormatBool(f.Reflink)
		if f.LinkMax != 0 {
			linkMax = strconv.FormatUint(f.LinkMax, 10)
		}
	}
	out := [][2]string{
		{"Repository", repo.Path()},
		{"Backing Filesystem", filesystemOf(d.home)},
		{"Reflink", reflink},
		{"Link limit", linkMax},
		{"Lanes", d.laneStatus()},
		{"Times", pick(d.settings.SharedTimes, "shared", "exact")},
		{"Hardlink counts", pick(d.settings.SharedLinks, "shared", "exact under etc and var")},
		{"Sync", pick(d.settings.Sync == SyncNone, "none", "filesystem")},
		{"Newest record survives a power cut", d.recordStatus()},
		{"Store label", pick(repo.Label() != "", repo.Label(), "none")},
		{"Supports d_type", "true"},
		{"Native Overlay Diff", "true"},
		{"Supports shifting", strconv.FormatBool(d.SupportsShifting(Mappings{}))},
		{"Layers with copied owners", d.mappedStatus()},
		{"Supports volatile", strconv.FormatBool(d.features.Volatile)},
		{"Overlay attributes", pick(d.userXattr(), "user.overlay", "trusted.overlay")},
		{"Lowers by file descriptor", strconv.FormatBool(d.features.LowerFD)},
		{"Escapes overlay attributes of images", strconv.FormatBool(d.features.EscapeXattr)},
	}
	return append(out, d.storeStatus()...)
}

// laneTime is as long as Status may count lanes: a store of many images has hundreds of thousands.
const laneTime = 3 * time.Second

// laneStatus says what exact times and inodes of their own for equal files cost.
func (d *Driver) laneStatus() string {
	ctx, cancel := context.WithTimeout(background(), laneTime)
	defer cancel()
	u, err := d.stores.main.Repo().LaneUse(ctx)
	text := fmt.Sprintf("%d, %d bytes, %d unused", u.Lanes, u.Bytes, u.Unused)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "more than " + text + " (storagectl du counts all)"
	case err != nil:
		return err.Error()
	}
	return text
}

func pick(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// recordStatus says when a record that containers/storage has just written is durable.
func (d *Driver) recordStatus() string {
	switch {
	case d.settings.Sync == SyncNone:
		return "no (sync=none)"
	case d.dirSync:
		return "yes (directory sync)"
	}
	return "when the program has shut the store down, as podman and buildah do at their end and skopeo does not, and no container is mounted (the filesystem has no directory sync)"
}

// storeStatus describes the other stores and repositories.
func (d *Driver) storeStatus() [][2]string {
	var out [][2]string
	if d.stores.images != d.stores.main {
		out = append(out, [2]string{"Image store", d.stores.images.Home()})
	}
	pinned := "none"
	for _, o := range d.stores.others {
		text := o.path
		if o.hidden != nil {
			text += " (not used: " + o.hidden.Error() + ")"
		}
		if o.pinned {
			pinned = text
			continue
		}
		out = append(out, [2]string{"Additional image store", text})
	}
	out = append(out, [2]string{"Pinned store", pinned})
	for _, r := range d.stores.shared {
		out = append(out, [2]string{"Shares with", r.Path()})
	}
	for _, a := range d.stores.absent {
		out = append(out, [2]string{"Does not share with", a})
	}
	if len(d.settings.Ignored) > 0 {
		out = append(out, [2]string{"Ignored options", strings.Join(d.settings.Ignored, ", ")})
	}
	return out
}

// Metadata returns the directories of a layer's mount under the names that the overlay driver uses: UpperDir, LowerDir, WorkDir and,
// while the layer is mounted, MergedDir.
func (d *Driver) Metadata(id string) (map[string]string, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	l, err := d.find(id)
	if err != nil {
		return nil, err
	}
	chain, err := d.chain(id)
	if err != nil {
		return nil, err
	}
	own, err := ownDirs(l.Layer)
	if err != nil {
		return nil, err
	}
	lowers, err := lowerDirs(chain[1:])
	if err != nil {
		return nil, err
	}
	m := map[string]string{"UpperDir": l.DiffDir(), "WorkDir": l.WorkDir()}
	if len(own) > 0 {
		m["UpperDir"] = own[0]
		lowers = append(own[1:], lowers...)
	}
	if len(lowers) > 0 {
		m["LowerDir"] = strings.Join(lowers, ":")
	}
	target := d.target(l)
	if mounted, err := d.mounts.mounted(target); err == nil && mounted {
		m["MergedDir"] = target
	}
	return m, nil
}

// ReadWriteDiskUsage returns what a layer takes by itself: its upper directory if it has one. It needs no lock.
func (d *Driver) ReadWriteDiskUsage(id string) (Usage, error) {
	leave, err := d.enter()
	if err != nil {
		return Usage{}, err
	}
	defer leave()
	l, err := d.find(id)
	if err != nil {
		return Usage{}, err
	}
	loose, err := l.Loose()
	if err != nil {
		return Usage{}, err
	}
	if !loose {
		return Usage{Size: l.Size, Inodes: l.Entries}, nil
	}
	return layers.DiskUsage(l.DiffDir())
}

// Dedup has nothing to do: equal files have been one object since they came in.
func (d *Driver) Dedup() {
	debug("dedup: equal files in %s are one object from the moment they arrive", filepath.Join(d.home, "repo"))
}
