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
	levels := flag.String("levels", "storage,driver,limits", "what to run: containers/storage's API, the driver alone, what other tools need")
	flag.IntVar(&s.rounds, "rounds", 3, "runs of each driver")
	flag.DurationVar(&s.limit, "limit", 14*time.Minute, "begin no run after this time")
	flag.StringVar(&s.images, "images", "", "directory for the filesystems' images, on the disk to measure (default: .cache/bench of the module)")
	flag.StringVar(&s.out, "json", "", "file for the measurements (default: build/bench.json of the module)")
	flag.StringVar(&s.profile, "profile", "", "directory for CPU profiles of every run")
	flag.BoolVar(&s.strace, "strace", false, "count system calls of every run with strace; times mean nothing then")
	flag.Parse()
	s.kinds, s.drivers, s.levels = strings.Split(*kinds, ","), strings.Split(*drivers, ","), strings.Split(*levels, ",")
	return s
}

func run(s settings) error {
	module, err := fixtures.ModuleRoot()
	if err != nil {
		return err
	}
	set, err := images()
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
	r := &report{Began: time.Now(), Machine: describeMachine(), Images: describeImages(set)}
	if err := s.measureAll(set, r); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.out, append(text, '\n'), 0o644); err != nil {
		return err
	}
	r.print(os.Stdout, s.drivers)
	return nil
}

// measureAll goes round by round, so that a limit on time takes the same from
// all, and lets the drivers begin in turn.
func (s *settings) measureAll(set *fixtures.Set, r *report) error {
	for round := range s.rounds {
		for _, kind := range s.kinds {
			for _, level := range s.levels {
				runs := s.drivers
				if level == "limits" {
					if round > 0 {
						continue
					}
					runs = []string{"tools"}
				}
				for i := range runs {
					driver := runs[(i+round)%len(runs)]
					if time.Since(r.Began) > s.limit {
						r.Cut = true
						return nil
					}
					fmt.Fprintf(os.Stderr, "bench: %4.0f s: round %d, %s, %s, %s\n", time.Since(r.Began).Seconds(), round+1, kind, level, driver)
					list, err := s.measure(set, kind, level, driver, round)
					if err != nil {
						return fmt.Errorf("%s on %s, level %s: %w", driver, kind, level, err)
					}
					r.Runs = append(r.Runs, list...)
				}
			}
		}
	}
	return nil
}

// measure makes a filesystem and runs one job on it in a fresh process.
func (s *settings) measure(set *fixtures.Set, kind, level, driver string, round int) (list []measurement, err error) {
	f, err := testfs.New(kind, testfs.Options{Size: 12 << 30, Image: s.images})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	j := job{Level: level, Driver: driver, Dir: f.Dir, Device: f.Device(), Fixtures: set.Root}
	if s.profile != "" {
		j.Profile = filepath.Join(s.profile, fmt.Sprintf("%s-%s-%s-%d", kind, level, driver, round))
	}
	list, err = s.start(&j)
	for i := range list {
		list[i].FS, list[i].Level, list[i].Driver, list[i].Round = kind, level, driver, round
	}
	return list, err
}

// start runs this program again for the job. What it measured comes back on a
// pipe.
func (s *settings) start(j *job) ([]measurement, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{self}
	if s.strace {
		args = []string{"strace", "-f", "-c", "-S", "calls", "-o", fmt.Sprintf("strace-%s-%s-%s.txt", filepath.Base(j.Dir), j.Level, j.Driver), self}
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

// images returns the fixture images; go run ./hack/fixtures makes them.
func images() (*fixtures.Set, error) {
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
