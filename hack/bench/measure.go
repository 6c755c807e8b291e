package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// measurement is one row of one run.
type measurement struct {
	FS, Level, Driver string
	Round             int
	Row               string
	Seconds           float64 // until the calls returned
	Settle            float64 // of the syncfs after them: what was not durable yet
	CPU               float64 // seconds, user and system, children included
	Written           int64   // bytes that reached the device, the syncfs included
	Used              int64   // bytes by which the filesystem got fuller
	Inodes            int64   // that the filesystem has more; 0 on btrfs, which counts none
	Memory            int64   // peak of the process so far, in bytes
	ChildMemory       int64   // peak of its biggest child so far, in bytes
	Freed             int64   `json:",omitempty"` // bytes by which df was better when the calls returned, before any sync
	Times             int     `json:",omitempty"` // how often, for rows that are the median of many
	Value             float64 `json:",omitempty"` // of rows that are no time
	Unit              string  `json:",omitempty"` // of Value
}

// meter measures rows on one filesystem.
type meter struct {
	dir    *os.File
	device string
	rows   []measurement
}

type state struct {
	when    time.Time
	cpu     float64
	written int64
	free    int64
	inodes  int64
}

// settle writes everything out.
func (m *meter) settle() error {
	if err := unix.Syncfs(int(m.dir.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}

func (m *meter) state() (s state, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.dir.Fd()), &st); err != nil {
		return s, err
	}
	s.free, s.inodes = int64(st.Bfree)*st.Bsize, int64(st.Files-st.Ffree)
	if s.written, err = writtenTo(m.device); err != nil {
		return s, err
	}
	s.cpu = cpuSeconds()
	s.when = time.Now()
	return s, nil
}

// row measures f, from a settled filesystem to a settled filesystem.
func (m *meter) row(name string, f func() error) error {
	if err := m.settle(); err != nil {
		return err
	}
	runtime.GC()
	before, err := m.state()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	done := time.Now()
	cpu := cpuSeconds()
	free, err := m.free()
	if err != nil {
		return err
	}
	if err := m.settle(); err != nil {
		return err
	}
	after, err := m.state()
	if err != nil {
		return err
	}
	r := measurement{
		Row: name, Seconds: done.Sub(before.when).Seconds(), Settle: after.when.Sub(done).Seconds(), CPU: cpu - before.cpu,
		Written: after.written - before.written, Used: before.free - after.free, Inodes: after.inodes - before.inodes,
		Freed: max(0, free-before.free),
	}
	if r.Memory, err = peakMemory(); err != nil {
		return err
	}
	r.ChildMemory = childMemory()
	m.rows = append(m.rows, r)
	return nil
}

// repeated measures a short thing many times, one by one, and notes the median.
func (m *meter) repeated(name string, warm, times int, f func(i int) error) error {
	for i := range warm {
		if err := f(-1 - i); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	var list []float64
	cpu := cpuSeconds()
	for i := range times {
		began := time.Now()
		if err := f(i); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, time.Since(began).Seconds())
	}
	m.rows = append(m.rows, measurement{Row: name, Seconds: median(list), CPU: (cpuSeconds() - cpu) / float64(times), Times: times})
	return nil
}

// timed notes one duration that was measured elsewhere.
func (m *meter) timed(name string, d time.Duration) {
	m.rows = append(m.rows, measurement{Row: name, Seconds: d.Seconds()})
}

// value notes what is no time.
func (m *meter) value(name, unit string, v float64) {
	m.rows = append(m.rows, measurement{Row: name, Value: v, Unit: unit})
}

// free is what df shows.
func (m *meter) free() (int64, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(m.dir.Fd()), &st)
	return int64(st.Bfree) * st.Bsize, err
}

func cpuSeconds() float64 {
	sum := 0.0
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
	}
	return sum
}

func childMemory() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_CHILDREN, &u) != nil {
		return 0
	}
	return u.Maxrss << 10
}

func peakMemory() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/self/status")
}

// writtenTo returns how many bytes the kernel has written to a block device.
func writtenTo(device string) (int64, error) {
	f, err := os.Open("/proc/diskstats")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 9 && fields[2] == device {
			var sectors int64
			_, err := fmt.Sscan(fields[9], &sectors)
			return sectors * 512, err
		}
	}
	return 0, fmt.Errorf("no device %s in /proc/diskstats", device)
}
