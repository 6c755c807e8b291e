// Command bench measures the ostree driver beside containers/storage's overlay
// driver: on fresh loop-mounted filesystems, with the same real images, in turn,
// each run in a process of its own. It prints a table and writes the
// measurements as JSON. It needs root and the images of hack/fixtures.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.podman.io/storage/pkg/reexec"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

type settings struct {
	kinds   []string
	drivers []string
	levels  []string
	rounds  int
	limit   time.Duration
	images  string // directory of the filesystem images
	out     string
	profile string
	strace  bool
	files   int // of the large layer
	crowd   int // images of the large store
	show    string
}

func main() {
	if reexec.Init() { // the overlay driver extracts in a child process
		return
	}
	logrus.SetLevel(logrus.ErrorLevel)
	var err error
	if job := os.Getenv(jobVariable); job != "" {
		err = runJob(job)
	} else {
		err = run(parseFlags())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags() settings {
	var s settings
	kinds := flag.String("fs", "ext4,xfs,btrfs", "filesystems")
	drivers := flag.String("drivers", "ostree,overlay", "drivers; ratios are the first against the second")
	var names []string
	for _, l := range levels {
		names = append(names, l.name)
	}
	chosen := flag.String("levels", strings.Join(names, ","), "what to run")
	flag.IntVar(&s.rounds, "rounds", 3, "runs of each driver")
	flag.DurationVar(&s.limit, "limit", 12*time.Minute, "begin no job after this time; the longest takes two or three minutes")
	flag.StringVar(&s.images, "images", "", "directory for the filesystems' images, on the disk to measure (default: .cache/bench of the module)")
	flag.StringVar(&s.out, "json", "", "file for the measurements (default: build/bench.json of the module)")
	flag.IntVar(&s.files, "files", 1_000_000, "files of the large layer of level memory; 0 for none")
	flag.IntVar(&s.crowd, "crowd", 1000, "images of the large store of level scale, of 60 layers each")
	flag.StringVar(&s.profile, "profile", "", "directory for CPU profiles of every run")
	flag.StringVar(&s.show, "show", "", "measure nothing: print the table of these files of measurements, separated by commas")
	flag.BoolVar(&s.strace, "strace", false, "count system calls of every run with strace; times mean nothing then")
	flag.Parse()
	s.kinds, s.drivers, s.levels = strings.Split(*kinds, ","), strings.Split(*drivers, ","), strings.Split(*chosen, ",")
	return s
}

func run(s settings) error {
	if s.show != "" {
		return show(strings.Split(s.show, ","), s.drivers)
	}
	module, err := fixtures.ModuleRoot()
	if err != nil {
		return err
	}
	set, err := openFixtures()
	if err != nil {
		return err
	}
	if s.images == "" {
		s.images = filepath.Join(module, ".cache", "bench")
	}
	if s.out == "" {
		s.out = filepath.Join(module, "build", "bench.json")
	}
	for _, dir := range []string{s.images, filepath.Dir(s.out)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	r := &report{Began: time.Now(), Machine: describeMachine(), Images: describeImages(set), Crowd: s.crowd, Files: s.files}
	failed := s.measureAll(set, r)
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.out, append(text, '\n'), 0o644); err != nil {
		return err
	}
	r.print(os.Stdout, s.drivers)
	return failed
}

// A level is one kind of job.
type level struct {
	name    string
	once    bool     // on the first filesystem alone
	late    bool     // after the others
	rounds  int      // at most
	drivers []string // nil means those that are compared
}

// levels are what there is to measure. What matters most is first: a limit on time cuts the last round.
var levels = []level{
	{name: "storage", rounds: 9},
	{name: "driver", rounds: 9},
	{name: "together", once: true, rounds: 3},
	{name: "build", rounds: 1},
	{name: "cache", rounds: 1},
	{name: "deep", once: true, rounds: 1},
	{name: "check", once: true, rounds: 1, drivers: []string{"ostree"}},
	{name: "scale", once: true, late: true, rounds: 1, drivers: []string{"ostree"}},
	{name: "memory", once: true, late: true, rounds: 1, drivers: []string{"ostree", upstreamOnly}},
	{name: "upstream", once: true, rounds: 1, drivers: []string{upstreamOnly}},
	{name: "limits", once: true, rounds: 1, drivers: []string{"tools"}},
}

// othersRounds is how often anything is measured on other filesystems than the first.
const othersRounds = 2

// A turn is one job, of each driver in turn.
type turn struct {
	round int
	kind  string
	level level
}

// turns go round by round, so that a limit on time takes the same from all. What takes long comes after the first round.
func (s *settings) turns() (list []turn) {
	for round := range s.rounds {
		for _, late := range []bool{false, true} {
			for i, kind := range s.kinds {
				for _, l := range levels {
					if slices.Contains(s.levels, l.name) && round < l.rounds && l.late == late && (i == 0 || !l.once && round < othersRounds) {
						list = append(list, turn{round, kind, l})
					}
				}
			}
		}
	}
	return list
}

// measureAll lets the drivers begin in turn. A job that fails does not end the others.
func (s *settings) measureAll(set *fixtures.Set, r *report) error {
	var errs []error
	for _, t := range s.turns() {
		runs := t.level.drivers
		if runs == nil {
			runs = s.drivers
		}
		for i := range runs {
			driver := runs[(i+t.round)%len(runs)]
			took := time.Since(r.Began)
			if took > s.limit {
				r.Cut = true
				return errors.Join(errs...)
			}
			fmt.Fprintf(os.Stderr, "bench: %4.0f s: round %d, %s, %s, %s\n", took.Seconds(), t.round+1, t.kind, t.level.name, driver)
			list, err := s.measure(set, t.kind, t.level.name, driver, t.round)
			if err != nil {
				err = fmt.Errorf("%s on %s, level %s: %w", driver, t.kind, t.level.name, err)
				fmt.Fprintln(os.Stderr, "bench:", err)
				errs = append(errs, err)
			}
			r.Runs = append(r.Runs, list...)
		}
	}
	return errors.Join(errs...)
}

// imageSize is that of a host's disk, in bytes; the image has holes. mkfs.ext4 gives a journal of 64 MB to filesystems of less than 16 GiB, which
// one large pull fills, and of 512 MB to this one.
const imageSize = 100 << 30

// measure makes a filesystem and runs one job on it in a fresh process.
func (s *settings) measure(set *fixtures.Set, kind, level, driver string, round int) (list []measurement, err error) {
	o := testfs.Options{Size: imageSize, Image: s.images}
	if kind == "ext4" {
		// Nothing but the work writes to the device, and there are inodes for a layer of a million files.
		o.Mkfs, o.Mount = []string{"-N", "4000000"}, "noinit_itable"
	}
	f, err := testfs.New(kind, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	run, err := os.MkdirTemp("/dev/shm", "ostree-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	j := job{Level: level, Driver: driver, Dir: f.Dir, Run: run, Device: f.Device(), Fixtures: set.Root}
	switch level {
	case "upstream":
		j.Level = "storage"
	case "memory":
		j.Many = s.files
	case "scale":
		j.Many = s.crowd
	}
	if s.profile != "" {
		j.Profile = filepath.Join(s.profile, fmt.Sprintf("%s-%s-%s-%d", kind, level, driver, round))
	}
	counts := ""
	if s.strace {
		counts = filepath.Join(filepath.Dir(s.out), fmt.Sprintf("strace-%s-%s-%s.txt", kind, level, driver))
	}
	list, err = start(&j, counts)
	for i := range list {
		list[i].FS, list[i].Level, list[i].Driver, list[i].Round = kind, level, driver, round
	}
	return list, err
}

// start runs this program again for the job. What it measured comes back on a pipe. With a file for counts, strace writes there how
// often it called what.
func start(j *job, counts string) ([]measurement, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{self}
	if counts != "" {
		args = []string{"strace", "-f", "-c", "-S", "calls", "-o", counts, self}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), jobVariable+"="+string(text))
	c.ExtraFiles = []*os.File{w}
	c.Stderr, c.Stdout = os.Stderr, os.Stderr
	if err := c.Start(); err != nil {
		w.Close()
		return nil, err
	}
	w.Close()
	var list []measurement
	decodeErr := json.NewDecoder(r).Decode(&list)
	if err := c.Wait(); err != nil {
		return nil, err
	}
	return list, decodeErr
}

// openFixtures returns the fixture images; go run ./hack/fixtures makes them.
func openFixtures() (*fixtures.Set, error) {
	root, err := fixtures.Root()
	if err != nil {
		return nil, err
	}
	set, err := fixtures.Open(root)
	if !errors.Is(err, fs.ErrNotExist) {
		return set, err
	}
	c := exec.Command("go", "run", "./hack/fixtures")
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("make the fixture images: %w", err)
	}
	return fixtures.Open(root)
}
