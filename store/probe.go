package store

import (
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Features are what the repository's filesystem can do.
type Features struct {
	Reflink bool   // FICLONE works
	LinkMax uint64 // most links of one inode; 0 if not known
}

// probes remembers what was found out about the filesystem.
type probes struct {
	once     sync.Once
	features Features
	err      error

	mu    sync.Mutex
	fine  bool          // nanoseconds are stored
	asked bool          // fine is known
	times map[Time]Time // times outside the safe range, as stored
}

// linkSlack is how far below the filesystem's limit an inode is left alone: several processes may be about to link it.
const linkSlack = 64

// features probes the filesystem at the first call.
func (r *root) features() (Features, error) {
	r.probes.once.Do(func() { r.probes.features, r.probes.err = r.probeFeatures() })
	return r.probes.features, r.probes.err
}

func (r *root) probeFeatures() (Features, error) {
	var f Features
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.fd(), &fs); err != nil {
		return f, fmt.Errorf("stat the filesystem of %s: %w", r.path, err)
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC:
		f.LinkMax = 65000
	case unix.BTRFS_SUPER_MAGIC:
		f.LinkMax = 65535
	case unix.XFS_SUPER_MAGIC:
		f.LinkMax = math.MaxInt32
	}
	if r.readOnly {
		return f, nil
	}
	from, err := r.scratch()
	if err != nil {
		return f, err
	}
	defer from.Close()
	to, err := r.scratch()
	if err != nil {
		return f, err
	}
	defer to.Close()
	if _, err := from.Write(make([]byte, 8192)); err != nil {
		return f, fmt.Errorf("probe for reflinks: %w", err)
	}
	f.Reflink = unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
	return f, nil
}

// scratch makes a file without a name.
func (r *root) scratch() (*os.File, error) {
	path := r.path + "/" + stagingDir
	f, err := os.OpenFile(path, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil {
		return f, nil
	}
	if f, err = os.CreateTemp(path, "probe-"); err != nil {
		return nil, fmt.Errorf("make a file to probe with: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("remove the file to probe with: %w", err)
	}
	return f, nil
}

// stored returns a time as the filesystem keeps it. What lies between 1970 and 2038 is kept by all, as far as they keep
// nanoseconds; other times are tried out.
func (r *root) stored(t Time) (Time, error) {
	p := &r.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		got, err := r.tryTime(Time{1, 999_999_999})
		if err != nil {
			return t, err
		}
		p.fine, p.asked, p.times = got.Nsec == 999_999_999, true, map[Time]Time{}
	}
	if t.Sec >= 0 && t.Sec < 1<<31-1 && (t.Nsec == 0 || p.fine) {
		return t, nil
	}
	if got, ok := p.times[t]; ok {
		return got, nil
	}
	got, err := r.tryTime(t)
	if err == nil && len(p.times) < 4096 {
		p.times[t] = got
	}
	return got, err
}

func (r *root) tryTime(t Time) (Time, error) {
	f, err := r.scratch()
	if err != nil {
		return t, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := setTime(int(f.Fd()), t); err != nil {
		return t, fmt.Errorf("set time %d.%09d: %w", t.Sec, t.Nsec, err)
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return t, err
	}
	return timeOf(&st), nil
}

// timeOf returns the modification time of a stat.
func timeOf(st *unix.Stat_t) Time { return Time{st.Mtim.Sec, uint32(st.Mtim.Nsec)} }

func (t Time) spec() []unix.Timespec {
	ts := unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	return []unix.Timespec{ts, ts}
}
