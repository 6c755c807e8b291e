package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/overlay"
)

// A probed file under the runroot remembers what trial mounts found out. It holds as long as the same kernel runs.
type probed struct {
	Boot     string           `json:"boot"`
	Device   uint64           `json:"device"`
	Euid     int              `json:"euid"`
	UIDMap   string           `json:"uid_map"` // of the user namespace, which decides what may be mounted
	Features overlay.Features `json:"features"`
}

// probe finds out what the filesystem of home can do, and fails where that is not enough.
func probe(home, runHome string) (overlay.Features, error) {
	var st unix.Stat_t
	if err := unix.Stat(home, &st); err != nil {
		return overlay.Features{}, &os.PathError{Op: "stat", Path: home, Err: err}
	}
	want := probed{Boot: bootID(), Device: st.Dev, Euid: os.Geteuid(), UIDMap: uidMap()}
	file := filepath.Join(runHome, fmt.Sprintf("features-%x", st.Dev))
	if got, ok := readProbed(file, want); ok {
		return got, nil
	}
	removeTrials(home)
	if err := tryHardlink(home); err != nil {
		return overlay.Features{}, err
	}
	p, err := overlay.NewProber(home)
	if err != nil {
		return overlay.Features{}, err
	}
	if err := p.Upper(); err != nil {
		return overlay.Features{}, fmt.Errorf("%w: %w", whyNoUpper(home), err)
	}
	if want.Features, err = overlay.Probe(home); err != nil {
		return overlay.Features{}, err
	}
	writeProbed(file, want)
	return want.Features, nil
}

// whyNoUpper returns ErrPrerequisites where the kernel has no overlayfs at all, and else ErrFilesystem.
func whyNoUpper(home string) error {
	list, err := os.ReadFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(list), "\toverlay\n") {
		return fmt.Errorf("%w: the kernel has no overlayfs", ErrPrerequisites)
	}
	return fmt.Errorf("%w: %s cannot hold an upper directory of overlayfs", ErrFilesystem, home)
}

// removeTrials removes what processes left in a home that died while they tried something there. It is called once a boot.
func removeTrials(home string) {
	for _, pattern := range []string{".overlay-probe-*", ".link-*"} {
		names, err := filepath.Glob(filepath.Join(home, pattern))
		if err != nil {
			continue
		}
		for _, name := range names {
			// A trial takes milliseconds; one of a few minutes ago may be one of a process that stands still.
			if fi, err := os.Lstat(name); err == nil && time.Since(fi.ModTime()) > trialTime {
				_ = os.RemoveAll(name)
			}
		}
	}
}

const trialTime = 10 * time.Minute

// link is os.Link, or a test's.
var link = os.Link

// tryHardlink makes and removes a hardlink in dir.
func tryHardlink(dir string) error {
	f, err := os.CreateTemp(dir, ".link-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	second := f.Name() + ".2"
	if err := link(f.Name(), second); err != nil {
		return fmt.Errorf("%w: %s takes no hardlinks: %w", ErrFilesystem, dir, err)
	}
	return os.Remove(second)
}

func readProbed(file string, want probed) (overlay.Features, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return overlay.Features{}, false
	}
	var got probed
	if json.Unmarshal(b, &got) != nil || got.Boot != want.Boot || got.Device != want.Device || got.Euid != want.Euid || got.UIDMap != want.UIDMap {
		return overlay.Features{}, false
	}
	return got.Features, true
}

// writeProbed saves what was found. Where that fails, the next process tries the kernel again.
func writeProbed(file string, p probed) {
	b, err := json.Marshal(p)
	if err != nil || os.MkdirAll(filepath.Dir(file), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".features-")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// uidMap returns the ids of the user namespace that this process is in.
func uidMap() string {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(b)), " ")
}
