package pins

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// Booted is the image that the host is booted from.
type Booted struct {
	Image  string `json:"image"`            // its name, without transport
	Digest string `json:"digest,omitempty"` // of its manifest, if known
	Source string `json:"source"`           // who said so
}

// FindBooted finds the booted image: what `bootc status --json` says, else the origin of the booted deployment. root is "/", or the root
// of another system, whose bootc is not asked. The error matches ErrUnknown if the host is not booted from an image.
func FindBooted(ctx context.Context, root string) (Booted, error) {
	var because error
	if filepath.Clean(root) == "/" {
		if path, err := exec.LookPath("bootc"); err == nil {
			text, err := exec.CommandContext(ctx, path, "status", "--json").Output()
			if err == nil {
				b, err := ParseBootcStatus(text)
				if err == nil {
					return b, nil
				}
				because = err
			} else {
				because = fmt.Errorf("run bootc status: %w", err)
			}
		}
	}
	b, err := fromOrigin(root)
	if err != nil {
		return Booted{}, errors.Join(err, because)
	}
	return b, nil
}

// ParseBootcStatus reads what `bootc status --json` prints.
func ParseBootcStatus(text []byte) (Booted, error) {
	var host struct {
		Status struct {
			Booted *struct {
				Image *struct {
					Image struct {
						Image     string `json:"image"`
						Transport string `json:"transport"`
					} `json:"image"`
					Digest string `json:"imageDigest"`
				} `json:"image"`
			} `json:"booted"`
		} `json:"status"`
	}
	if err := json.Unmarshal(text, &host); err != nil {
		return Booted{}, fmt.Errorf("read bootc status: %w", err)
	}
	b := host.Status.Booted
	if b == nil {
		return Booted{}, fmt.Errorf("bootc status names no booted deployment: %w", ErrUnknown)
	}
	if b.Image == nil || b.Image.Image.Image == "" {
		return Booted{}, fmt.Errorf("bootc status names no image of the booted deployment: %w", ErrUnknown)
	}
	return Booted{Image: b.Image.Image.Image, Digest: b.Image.Digest, Source: "bootc status"}, nil
}

// fromOrigin reads the origin of the booted deployment.
func fromOrigin(root string) (Booted, error) {
	mark, err := os.ReadFile(filepath.Join(root, "run/ostree-booted"))
	if err != nil {
		return Booted{}, fmt.Errorf("this host is not booted from an OSTree deployment (%w): %w", err, ErrUnknown)
	}
	deployment := deploymentOfMark(root, mark)
	if deployment == "" {
		if deployment, err = deploymentOfKernel(root); err != nil {
			return Booted{}, err
		}
	}
	origin := deployment + ".origin"
	text, err := os.ReadFile(origin)
	if err != nil {
		return Booted{}, fmt.Errorf("read the origin of the booted deployment: %w", err)
	}
	name, err := imageOfOrigin(string(text))
	if err != nil {
		return Booted{}, fmt.Errorf("%s: %w", origin, err)
	}
	b := Booted{Image: name, Source: origin}
	b.Digest = manifestDigest(root, filepath.Base(deployment))
	return b, nil
}

// deploymentOfMark finds the deployment whose directory /run/ostree-booted names; "" if it names none, as before 2023. It is right after a
// soft reboot too, when the kernel's command line is that of the deployment before.
func deploymentOfMark(root string, mark []byte) string {
	device, inode, ok := deviceInode(mark)
	if !ok {
		return ""
	}
	for _, top := range []string{"sysroot", ""} {
		all, err := filepath.Glob(filepath.Join(root, top, "ostree/deploy/*/deploy/*.*"))
		if err != nil {
			return ""
		}
		for _, dir := range all {
			var st unix.Stat_t
			if unix.Stat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Dev == device && st.Ino == inode {
				return dir
			}
		}
	}
	return ""
}

// deviceInode reads `backing-root-device-inode` from /run/ostree-booted, a GVariant a{sv}: an entry is aligned to 8 bytes, and so is its
// value, which its type ends.
func deviceInode(mark []byte) (device, inode uint64, ok bool) {
	const key, kind = "backing-root-device-inode\x00", "\x00(tt)"
	at := bytes.Index(mark, []byte(key))
	if at < 0 || at%8 != 0 {
		return 0, 0, false
	}
	at = (at + len(key) + 7) &^ 7
	if len(mark) < at+16+len(kind) || string(mark[at+16:at+16+len(kind)]) != kind {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(mark[at:]), binary.LittleEndian.Uint64(mark[at+8:]), true
}

// deploymentOfKernel finds the deployment that the kernel's command line names.
func deploymentOfKernel(root string) (string, error) {
	line, err := os.ReadFile(filepath.Join(root, "proc/cmdline"))
	if err != nil {
		return "", fmt.Errorf("read the kernel's command line: %w", err)
	}
	var link string
	for _, word := range strings.Fields(string(line)) {
		if v, ok := strings.CutPrefix(word, "ostree="); ok {
			link = v
		}
	}
	if link == "" {
		return "", fmt.Errorf("the kernel's command line has no ostree=: %w", ErrUnknown)
	}
	return deploymentOf(root, link)
}

// deploymentOf follows `/ostree/boot.1/os/<checksum>/0`, a link to the deployment.
func deploymentOf(root, link string) (string, error) {
	for _, top := range []string{"sysroot", ""} {
		path := filepath.Join(root, top, filepath.Clean("/"+link))
		target, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("follow ostree=%s: %w", link, err)
		}
		// boot.1 is a link itself, beside its target, so that `..` means the same either way.
		deployment := filepath.Join(filepath.Dir(path), target)
		if filepath.IsAbs(target) {
			deployment = filepath.Join(root, top, target)
		}
		if st, err := os.Stat(deployment); err != nil || !st.IsDir() {
			return "", fmt.Errorf("ostree=%s leads to %s, which is no deployment: %w", link, deployment, ErrUnknown)
		}
		return deployment, nil
	}
	return "", fmt.Errorf("ostree=%s of the kernel's command line is not there: %w", link, ErrUnknown)
}

// imageOfOrigin reads the image's name from an origin file.
func imageOfOrigin(text string) (string, error) {
	section, refspec := "", ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[origin]" {
			continue
		}
		switch strings.TrimSpace(key) {
		case "container-image-reference":
			return imageOfReference(strings.TrimSpace(value))
		case "refspec", "baserefspec":
			refspec = strings.TrimSpace(value)
		}
	}
	if refspec != "" {
		return "", fmt.Errorf("the host follows the OSTree ref %s and no container image: %w", refspec, ErrUnknown)
	}
	return "", fmt.Errorf("it names no container image: %w", ErrUnknown)
}

// imageOfReference takes `ostree-unverified-registry:quay.io/a/b:1` and its relatives apart.
func imageOfReference(reference string) (string, error) {
	scheme, rest, _ := strings.Cut(reference, ":")
	switch scheme {
	case "ostree-unverified-registry":
	case "ostree-remote-registry":
		_, rest, _ = strings.Cut(rest, ":") // the remote
	case "ostree-remote-image":
		_, rest, _ = strings.Cut(rest, ":")
		rest = withoutTransport(rest)
	case "ostree-unverified-image", "ostree-image-signed":
		rest = withoutTransport(rest)
	default:
		return "", fmt.Errorf("the image reference %q is of no known kind: %w", reference, ErrUnknown)
	}
	if rest == "" {
		return "", fmt.Errorf("the image reference %q names no image: %w", reference, ErrUnknown)
	}
	return rest, nil
}

func withoutTransport(s string) string {
	for _, transport := range []string{"docker://", "registry:", "containers-storage:"} {
		if name, ok := strings.CutPrefix(s, transport); ok {
			return name
		}
	}
	return s
}

// manifestDigest reads the image's digest from the deployment's commit; "" if it cannot. The object is read as a file: opening the host's
// repository as one of ours would write to it.
func manifestDigest(root, deployment string) string {
	checksum, _, _ := strings.Cut(deployment, ".")
	if _, err := object.ParseChecksum(checksum); err != nil {
		return ""
	}
	for _, repo := range []string{"sysroot/ostree/repo", "ostree/repo"} {
		text, err := os.ReadFile(filepath.Join(root, repo, "objects", checksum[:2], checksum[2:]+".commit"))
		if err != nil {
			continue
		}
		var c object.Commit
		if err := c.UnmarshalBinary(text); err != nil {
			return ""
		}
		v, ok := c.Lookup("ostree.manifest-digest")
		if !ok {
			return ""
		}
		name, err := v.Text()
		if err != nil || digest.Digest(name).Validate() != nil {
			return ""
		}
		return name
	}
	return ""
}

// FindBootedImage finds the booted image in the main store, by its digest, or by its name where no digest is known. The error says how
// to bring the image in if it is not there.
func (s *Store) FindBootedImage(b Booted) (id string, err error) {
	main, err := s.mainStore()
	if err != nil {
		return "", err
	}
	what := b.Image
	if b.Digest != "" {
		what = b.Digest
	}
	image, err := findImage(main, what)
	if errors.Is(err, ErrUnknown) {
		image, err = findImage(s.own, what)
	}
	if err == nil {
		return image.ID, nil
	}
	if !errors.Is(err, ErrUnknown) {
		return "", err
	}
	if other, err := findImage(main, b.Image); err == nil && b.Digest != "" {
		return "", fmt.Errorf("the host is booted from %s with the manifest %s, and the store's %s is image %s with another manifest; `podman pull %s` brings it in: %w",
			b.Image, b.Digest, b.Image, short(other.ID), pullName(b), ErrUnknown)
	}
	return "", fmt.Errorf("the booted image %s (%s) is not in the store; `podman pull %s` brings it in: %w", b.Image, b.Source, pullName(b), ErrUnknown)
}

// pullName is what to pull to get just this image.
func pullName(b Booted) string {
	if b.Digest == "" {
		return b.Image
	}
	return repository(b.Image) + "@" + b.Digest
}
