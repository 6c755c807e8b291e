package testfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FS is one mounted filesystem of this package.
type FS struct {
	Kind string // "ext4", "xfs" or "btrfs"
	Dir  string // its root

	top    string   // directory that holds Dir, locked as long as we live
	lock   *os.File // top, with a flock
	image  *os.File // the image, which has no name any more
	loop   *os.File // the loop device; it detaches itself after the last close
	device string   // its path
	mount  string   // mount options
	images string   // directory of the image
}

var mounted = struct {
	sync.Mutex
	m map[string]*FS
}{m: map[string]*FS{}}

// topPrefix begins the names of the directories below os.TempDir that hold
// mount points.
const topPrefix = "ostree-testfs-"

var sweepOnce sync.Once

// New makes and mounts a filesystem for programs that are no tests. Errors
// match ErrUnsupported where this machine cannot.
func New(kind string, o Options) (*FS, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("mounting needs root: %w", ErrUnsupported)
	}
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", err, ErrUnsupported)
	}
	sweepOnce.Do(sweep)
	f := &FS{Kind: kind, mount: o.Mount}
	if err := f.makeTop(); err != nil {
		return nil, err
	}
	if err := f.setup(mkfs, &o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mounted.Lock()
	mounted.m[f.Dir] = f
	mounted.Unlock()
	return f, nil
}

// makeTop makes the directory of the mount point and locks it, so that the
// sweep of another process sees that it is in use.
func (f *FS) makeTop() error {
	top, err := os.MkdirTemp("", topPrefix)
	if err != nil {
		return err
	}
	f.top, f.Dir = top, filepath.Join(top, f.Kind)
	if f.lock, err = os.Open(top); err != nil {
		return err
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", top, err)
	}
	return os.Mkdir(f.Dir, 0o755)
}

// setup makes the image, its loop device and the filesystem, and mounts it.
func (f *FS) setup(mkfs string, o *Options) error {
	size := o.Size
	if size == 0 {
		size = DefaultSize
	}
	f.images = o.imageDir()
	image, err := f.makeImage()
	if err != nil {
		return err
	}
	// We and the loop device keep the file; without a name nothing is left
	// behind when the process is killed.
	defer os.Remove(image.Name())
	if err := image.Truncate(size); err != nil {
		return err
	}
	args := append(mkfsArgs(f.Kind), o.Mkfs...)
	if out, err := exec.Command(mkfs, append(args, image.Name())...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs, err, out)
	}
	if f.loop, f.device, err = attach(image); err != nil {
		return err
	}
	return f.mountDevice()
}

// makeImage makes an empty file, which is our image from now on.
func (f *FS) makeImage() (*os.File, error) {
	image, err := os.CreateTemp(f.images, topPrefix+f.Kind+"-")
	if err == nil {
		f.image = image
	}
	return image, err
}

// mkfsArgs returns the arguments that make a filesystem quickly and with the
// features that the tests count on.
func mkfsArgs(kind string) []string {
	switch kind {
	case "ext4":
		return []string{"-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"}
	case "xfs":
		return []string{"-q", "-f", "-K", "-m", "reflink=1"}
	case "btrfs":
		return []string{"-q", "-f", "-K"}
	}
	return nil
}

func (f *FS) mountDevice() error {
	err := unix.Mount(f.device, f.Dir, f.Kind, 0, f.mount)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount %s: %w: %w", f.Kind, err, ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", f.Kind, f.Dir, err)
	}
	if err := unix.Mount("", f.Dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", f.Dir, err)
	}
	return nil
}

// Close unmounts the filesystem with all that is mounted below it and gives
// the loop device back. If something holds the filesystem, it is detached
// nevertheless, and the error names the open files of this process.
func (f *FS) Close() error {
	mounted.Lock()
	delete(mounted.m, f.Dir)
	mounted.Unlock()
	err := unmountAll(f.Dir, true)
	for _, file := range []*os.File{f.loop, f.image} {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}
	if f.lock != nil {
		err = errors.Join(err, os.RemoveAll(f.top), f.lock.Close())
	}
	return err
}

// Device is the name of the loop device in /proc/diskstats and /sys/block.
func (f *FS) Device() string { return filepath.Base(f.device) }

// unmountAll unmounts everything on and below dir, deepest first. With detach,
// busy mounts are detached, and reported.
func unmountAll(dir string, detach bool) error {
	points, err := mountPoints(dir)
	if err != nil {
		return err
	}
	// A later mount may lie on an earlier one: newest first, with longer paths
	// before shorter ones.
	slices.Reverse(points)
	sort.SliceStable(points, func(i, j int) bool { return len(points[i]) > len(points[j]) })
	var errs []error
	for _, p := range points {
		err := unmount(p)
		if err == nil {
			continue
		}
		err = fmt.Errorf("unmount %s: %w%s", p, err, openBelow(dir))
		if detach {
			err = errors.Join(err, unix.Unmount(p, unix.MNT_DETACH))
		}
		errs = append(errs, err)
		if !detach {
			break
		}
	}
	return errors.Join(errs...)
}

// mountPoints lists what is mounted on and below dir, in the kernel's order. It
// reads /proc itself: a mount with hundreds of lowers makes lines that the usual
// scanners take for too long.
func mountPoints(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(line, " ", 6)
		if len(fields) < 6 {
			continue
		}
		point := unescape.Replace(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			list = append(list, point)
		}
	}
	return list, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// unmount is umount(2) which waits a little for others: a process that has just
// ended, or one between fork and exec, holds files for some milliseconds more, on a
// machine with much to do for seconds.
func unmount(dir string) error {
	var err error
	for range 250 {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// openBelow lists the files below dir that this process has open.
func openBelow(dir string) string {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, e := range list {
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (path == dir || strings.HasPrefix(path, dir+"/")) {
			fmt.Fprintf(&b, "\n\topen here: %s", path)
		}
	}
	return b.String()
}

// sweep removes what processes left that were killed.
func sweep() {
	tops, err := filepath.Glob(filepath.Join(os.TempDir(), topPrefix+"*"))
	if err != nil {
		return
	}
	for _, top := range tops {
		f, err := os.Open(top)
		if err != nil {
			continue
		}
		if st, err := f.Stat(); err == nil && st.IsDir() && time.Since(st.ModTime()) > time.Minute &&
			unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = unmountAll(top, true)
			_ = os.RemoveAll(top)
		}
		f.Close()
	}
}
