package layers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A TarDialect is how one version of containers/storage writes layer tars where it differs from v1.64 and later, the zero value.
// A driver takes the one of the program that it is linked into, or the layers that the program makes have other DiffIDs
// than under the program's overlay driver. DetectTarDialect finds it.
type TarDialect struct {
	TypeBits    bool // modes have the bits of the file type (before v1.48)
	Names       bool // users and groups have the names that this machine knows for their ids on disk (before v1.53)
	OverlayUser bool // user.overlay.* attributes are written (before v1.53)
	PlainLinks  bool // a further whiteout of an inode names what the first one removed, not the whiteout (before v1.59)
	LinkToLast  bool // a further link names the link before it, not the first one (v1.59.0)
	RawCaps     bool // capabilities keep the root id of the host in an id mapping (before v1.64)
}

// probeCapability is a capability of a namespace whose root is 4096 on the host.
const (
	probeRootID     = 4096
	probeCapability = "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00"
)

// DetectTarDialect has write tar a small upper directory, which it makes in dir, and looks at the result. write is to do what
// the host program's overlay driver does: tar an upper directory that has no lowers, with the same mappings for users and groups.
func DetectTarDialect(dir string, write func(upper string, maps []IDMap) (io.ReadCloser, error)) (d TarDialect, err error) {
	upper, err := os.MkdirTemp(dir, "dialect-")
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(upper)) }()
	if err := makeProbe(upper); err != nil {
		return d, fmt.Errorf("make a directory to learn the form of layer tars: %w", err)
	}
	maps := []IDMap{{ContainerID: 0, HostID: 0, Size: probeRootID}, {ContainerID: 1 << 20, HostID: probeRootID, Size: 1}}
	r, err := write(upper, maps)
	if err != nil {
		return d, fmt.Errorf("learn the form of layer tars: %w", err)
	}
	defer r.Close()
	if err := d.learn(r); err != nil {
		return d, fmt.Errorf("learn the form of layer tars: %w", err)
	}
	return d, nil
}

// makeProbe fills an upper directory with something of all that is told apart. What the filesystem refuses stays out: what cannot
// be stored need not be known.
func makeProbe(upper string) error {
	file := filepath.Join(upper, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return err
	}
	_ = unix.Setxattr(file, "user.overlay.probe", []byte("1"), 0)
	_ = unix.Setxattr(file, capsXattr, []byte(probeCapability), 0)
	for _, n := range []string{"link1", "link2"} {
		if err := os.Link(file, filepath.Join(upper, n)); err != nil {
			return err
		}
	}
	white := filepath.Join(upper, "white0")
	if unix.Mknod(white, unix.S_IFCHR, 0) == nil {
		return os.Link(white, filepath.Join(upper, "white1"))
	}
	return nil
}

// learn reads what became of the probe.
func (d *TarDialect) learn(r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Name {
		case "file":
			d.TypeBits = h.Mode&unix.S_IFMT != 0
			d.Names = h.Uname != "" || h.Gname != ""
			_, d.OverlayUser = h.PAXRecords[xattrRecord+"user.overlay.probe"]
			caps, ok := h.PAXRecords[xattrRecord+capsXattr]
			d.RawCaps = ok && caps == probeCapability
		case "link2":
			d.LinkToLast = h.Linkname == "link1"
		case ".wh.white1":
			d.PlainLinks = h.Linkname == "white0"
		}
	}
}

// speak gives a header the form of the dialect. e has the owner on disk.
func (t *treeTar) speak(e *walkEntry, hdr *tar.Header) {
	if t.dialect.TypeBits {
		hdr.Mode |= int64(e.st.Mode & unix.S_IFMT)
	}
	if t.dialect.Names {
		hdr.Uname = t.names.lookup("u", e.st.Uid, userName)
		hdr.Gname = t.names.lookup("g", e.st.Gid, groupName)
	}
}

// link remembers the name that further links of an entry's inode have as their target.
func (t *treeTar) link(e *walkEntry, hdr *tar.Header) {
	if e.isDir() || e.st.Nlink < 2 {
		return
	}
	name := hdr.Name
	if t.dialect.PlainLinks {
		name = e.path
	}
	key := inodeOf(&e.st)
	if _, seen := t.seen[key]; !seen || t.dialect.LinkToLast {
		t.seen[key] = name
	}
}

// An ownerNames remembers the names of users and groups; each costs a read of a file, or worse.
type ownerNames map[string]string

func (n ownerNames) lookup(kind string, id uint32, find func(string) string) string {
	text := strconv.FormatUint(uint64(id), 10)
	name, ok := n[kind+text]
	if !ok {
		name = find(text)
		n[kind+text] = name
	}
	return name
}

func userName(id string) string {
	u, err := user.LookupId(id)
	if err != nil {
		return ""
	}
	return u.Username
}

func groupName(id string) string {
	g, err := user.LookupGroupId(id)
	if err != nil {
		return ""
	}
	return g.Name
}

// dialectAttrs reads the attributes that containers/storage puts into a layer: security.capability, security.ima and user.*, but
// not what overlayfs keeps under user.overlay. An attribute too big to be read is left out.
func dialectAttrs(a attrSource, m idMaps, d TarDialect) (map[string]string, error) {
	names, err := a.list()
	if err != nil {
		return nil, err
	}
	var attrs map[string]string
	for _, name := range names {
		if name != capsXattr && name != "security.ima" && !strings.HasPrefix(name, "user.") ||
			strings.HasPrefix(name, "user.overlay.") && !d.OverlayUser {
			continue
		}
		maps := m
		if name == capsXattr && d.RawCaps {
			maps = idMaps{}
		}
		if attrs, err = addAttr(attrs, a, name, name, maps); err != nil {
			return nil, err
		}
	}
	return attrs, nil
}
